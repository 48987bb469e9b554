"""One scan, from a resolved config to a run directory: what each layer answers to being cut."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from omegaconf import DictConfig
from rich.console import Console

from netopt_cli import plots
from netopt_cli.dataset import ArraySource, Source
from netopt_cli.engine.evaluation import BATCH, Evaluator
from netopt_cli.errors import ConfigError, TargetError
from netopt_cli.graph.calls import calls_by_layer, macs
from netopt_cli.graph.channels import read_channels, values_of
from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.rebuild import layers
from netopt_cli.graph.response import LEVELS, Technique, answers, layers_of
from netopt_cli.metrics import metric_named
from netopt_cli.pipeline import BASELINE
from netopt_cli.preparation import Parts, prepare, recording
from netopt_cli.record import Record
from netopt_cli.response_table import Row, drop, lost
from netopt_cli.trainings import Trainer, Trainings

FILE_ARCH = "netopt_cli.arch.keras_model.build"


def run(
    cfg: DictConfig,
    run_dir: Path,
    *,
    allow: tuple[str, ...],
    command: list[str],
    messages: Console,
    quiet: bool,
    techniques: Sequence[Technique],
    samples: int | None = None,
    started: Callable[[], object] | None = None,
    group: str | None = None,
) -> list[Row]:
    """Trains the baseline of a config and scans every layer of it.

    A network from a file (`arch.path`) is taken as it is.

    Args:
        cfg: The composed config, without stages.
        run_dir: An existing, empty directory.
        techniques: What to try, in this order.
        samples: Validation samples to look at; None for all.
        allow, command, messages, quiet, started, group: See `experiment.run`.

    Returns:
        The rows of sensitivity.csv.

    Raises:
        InputError: The config cannot work.
        RunError: The training failed; the record says how far it came.
    """
    _refuse_stages(cfg)
    is_trained = cfg.arch["_target_"] == FILE_ARCH and cfg.arch.path is not None
    if is_trained:
        cfg.arch.head = "keep"
    parts = prepare(cfg, run_dir, allow=allow, messages=messages, quiet=quiet)
    if parts.target.workers > 1:
        raise TargetError("sensitivity runs in one process: choose another target")
    with recording(cfg, parts, run_dir, command=command, started=started, group=group) as record:
        record.fact("kind", "sensitivity")
        with parts.target.strategy.scope():
            model = parts.network.model if is_trained else _trained(cfg, parts, record)
            seen = _in_memory(parts.data.validation, samples, cfg.seed)
            _scan(model, parts, record, techniques, seen)
    return record.responses


def _refuse_stages(cfg: DictConfig) -> None:
    if cfg.opt:
        raise ConfigError(
            "sensitivity scans a network before any stage: leave opt=none. "
            f"Received: opt=[{','.join(map(str, cfg.opt))}]; to scan what a stage made: "
            "--model RUN/1-STAGE/model.keras"
        )


def _trained(cfg: DictConfig, parts: Parts, record: Record) -> keras.Model:
    """Trains the baseline as a run does, and keeps it."""
    trainings = Trainings(
        parts.arch, parts.data, parts.target, parts.settings,
        seed=cfg.seed, record=record, reporter=parts.reporter,
    )  # fmt: skip
    trainer = Trainer(trainings, label=f"0-{BASELINE}", name=BASELINE)
    network = parts.network
    if parts.settings.epochs:
        network = trainer.fit(network, epochs=parts.settings.epochs, restart=True)
    record.save_model(trainer.label, network.model)
    return network.model


def _scan(
    model: keras.Model,
    parts: Parts,
    record: Record,
    techniques: Sequence[Technique],
    samples: ArraySource,
) -> None:
    evaluate = Evaluator(model, parts.data, samples)
    name = parts.data.task.metric
    metric = metric_named(name)
    loss, score = evaluate()
    uncut = {"loss": loss, name: score, "samples": len(samples)}
    record.fact("uncut", uncut)
    say = parts.reporter.say
    whole = f"{metric.title} {metric.text(score)}, loss {loss:.4f}"
    say(f"as it is: {whole} on {len(samples):,} samples")
    for technique in techniques:
        facts = _facts(model, technique)
        found = answers(model, technique, LEVELS[technique], lambda _: evaluate())
        for layer, its_answers in itertools.groupby(found, key=lambda answer: answer[0]):
            rows = [
                {
                    "technique": technique,
                    "layer": layer,
                    "level": level,
                    **facts[layer],
                    "loss": after,
                    name: still,
                    "drop": drop(metric, score, still),
                    "metric": name,
                }
                for _, level, (after, still) in its_answers
            ]
            record.add_responses(rows, uncut)
            drops = ", ".join(metric.bare(row["drop"]) for row in rows)
            say(f"{technique}  {layer}  {lost(metric)}: {drops}")
        if not facts:
            say(f"{technique}: the network has nothing that it could cut")
    if record.responses:
        record.save_figure("sensitivity.svg", plots.response_map(record.responses))


def _in_memory(source: Source, limit: int | None, seed: int) -> ArraySource:
    """A split, or samples drawn from it, read once."""
    order = np.random.default_rng(seed).permutation(len(source))
    batches = list(source.take(np.sort(order[:limit])).batches(BATCH))
    return ArraySource(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def _facts(model: keras.Model, technique: Technique) -> dict[str, dict[str, int | float | None]]:
    """Returns layer -> its weights and its share of the MACs, for all that a technique can cut."""
    its_calls = calls_by_layer(model)
    owners = {id(layer): layer for layer in layers(model) if isinstance(layer, keras.Layer)}
    multiplied = {key: macs(layer, its_calls[key]) for key, layer in owners.items()}
    total = sum(multiplied.values())

    def facts(params: int, part: float) -> dict[str, int | float | None]:
        return {"params": params, "macs_share": part / total if total else None}

    if technique == "structured":
        values = values_of(model)
        return {
            group.name: facts(
                group.rows(values).size,
                sum(multiplied[k] for k, layer in owners.items() if layer.name in group.layers),
            )
            for group in read_channels(model).groups
        }
    of_kernel: dict[int, float] = {}
    for key, layer in owners.items():
        # The kernels of one layer work at the same positions: as much as they are large.
        sizes = {id(w): math.prod(w.shape) for w in layer.weights if len(w.shape) >= 2}
        for weight, size in sizes.items():
            of_kernel[weight] = multiplied[key] * size / sum(sizes.values())
    found = kernels(model)
    return {
        path: facts(math.prod(found[path].shape), of_kernel[id(found[path])])
        for path in layers_of(model, technique)
    }
