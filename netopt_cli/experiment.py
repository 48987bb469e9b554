"""One run, from a resolved config to a complete run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from netopt_cli.components import build
from netopt_cli.contracts import ArchBuilder, Network
from netopt_cli.dataset import Dataset
from netopt_cli.engine.settings import TrainSettings
from netopt_cli.errors import NetoptError
from netopt_cli.export.formats import further
from netopt_cli.pipeline import Pipeline
from netopt_cli.planning import plan
from netopt_cli.progress import Reporter, reporter_for
from netopt_cli.record import Record
from netopt_cli.run_dir import LOG, point_latest
from netopt_cli.tables import count_text


@dataclass(frozen=True)
class Experiment:
    """What a run left.

    Attributes:
        run_dir: Its directory.
        rows: The rows of its metrics table, in order.
    """

    run_dir: Path
    rows: list[dict[str, Any]]


def run(
    cfg: DictConfig,
    run_dir: Path,
    *,
    allow: tuple[str, ...],
    command: list[str],
    messages: Console,
    quiet: bool,
    latest: Path | None = None,
) -> Experiment:
    """Runs one experiment.

    Everything is built and checked before anything is written or trained.

    Args:
        cfg: The composed config.
        run_dir: An existing, empty directory.
        allow: Packages outside netopt and Keras that `_target_` may name.
        command: The words that started the run, for the record.
        messages: Where progress goes.
        latest: A link that shall lead to this run once it has begun.

    Raises:
        InputError: The config cannot work.
        RunError: The run failed on the way; its record says how far it came.
    """
    reporter = reporter_for(messages, quiet=quiet, log=run_dir / LOG)
    keras.backend.clear_session()  # or names, and the bytes of files, would count earlier runs
    keras.utils.set_random_seed(cfg.seed)
    if cfg.deterministic:
        tf.config.experimental.enable_op_determinism()

    formats = further(cfg.get("export", ()))
    target = build(cfg.target, allow=allow, where="target")
    settings = build(cfg.train, allow=allow, where="train")
    stages = {name: build(node, allow=allow, where=f"opt.{name}") for name, node in cfg.opt.items()}
    arch = build(cfg.arch, allow=allow, where="arch", partial=True)
    data = build(cfg.data, allow=allow, where="data", seed=cfg.seed)
    with target.strategy.scope():
        network = _build(arch, data)
        plan(network, stages, lambda arch: _build(arch, data))
    _introduce(reporter, network, data, settings, list(stages))

    record = Record(
        run_dir, config_yaml=OmegaConf.to_yaml(cfg, resolve=True), command=command, seed=cfg.seed
    )
    if latest is not None:
        point_latest(latest, run_dir)
    record.fact("config", OmegaConf.to_container(cfg, resolve=True))
    record.fact("dataset", _describe(data))
    record.fact("pipeline", list(stages))
    pipeline = Pipeline(
        arch, stages, data, target, settings,
        seed=cfg.seed, control=cfg.control, formats=formats, record=record, reporter=reporter,
    )  # fmt: skip
    try:
        rows = pipeline.run(network)
    except KeyboardInterrupt:
        record.finish("interrupted")
        raise
    except NetoptError as error:
        record.finish("failed", str(error))
        raise
    except Exception as error:
        record.finish("failed", f"{type(error).__name__}: {error}")
        raise
    record.finish("completed")
    return Experiment(run_dir, rows)


def _build(arch: ArchBuilder, data: Dataset) -> Network:
    return Network(arch(shape=data.shape, classes=data.classes))


def _introduce(
    reporter: Reporter,
    network: Network,
    data: Dataset,
    settings: TrainSettings,
    stages: list[str],
) -> None:
    shape = "x".join(map(str, data.shape))
    reporter.say(
        f"{network.model.name} ({count_text(network.model.count_params())} parameters) on "
        f"{data.name} ({shape}, {data.classes} classes; {len(data.train):,} train, "
        f"{len(data.validation):,} validation, {len(data.test):,} test); "
        f"stages: {', '.join(stages) or 'none'}"
    )
    if settings.batch_size > len(data.train):
        reporter.say(
            f"train.batch_size={settings.batch_size} is more than the training split: each batch "
            "is the whole split"
        )


def _describe(data: Dataset) -> dict[str, Any]:
    return {
        "name": data.name,
        "shape": data.shape,
        "classes": data.classes,
        "train": len(data.train),
        "validation": len(data.validation),
        "test": len(data.test),
        "fingerprint_sha256": data.fingerprint,
    }
