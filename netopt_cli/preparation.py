"""What a run is made of, built and checked before anything is written; and its record."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from netopt_cli.components import build, import_packages
from netopt_cli.contracts import ArchBuilder, Network, Stage, Target
from netopt_cli.dataset import Dataset
from netopt_cli.engine.settings import TrainSettings
from netopt_cli.errors import ArchError, ConfigError, DataError, LostInputError, NetoptError
from netopt_cli.lost_workers import noticing_lost_workers
from netopt_cli.networks import build_network
from netopt_cli.planning import plan, require_epochs
from netopt_cli.progress import Reporter, reporter_for
from netopt_cli.record import Record
from netopt_cli.run_dir import (
    LOG,
    has_record,
    held,
    refuse_another_config,
    refuse_other_data,
)
from netopt_cli.tables import count_text
from netopt_cli.trackers import Trackers
from netopt_cli.tracking.tensorboard import TensorBoard


@dataclass(frozen=True)
class Parts:
    """The parts of a run, none of them used yet.

    Attributes:
        arch: The run's own.
        network: Built by it, untrained unless it comes from a file.
        stages: By name, in their order; their plans for the network hold.
        trackers: Of several workers, those of the chief alone.
    """

    arch: ArchBuilder
    network: Network
    stages: Mapping[str, Stage]
    data: Dataset
    settings: TrainSettings
    target: Target
    reporter: Reporter
    trackers: Trackers


def prepare(
    cfg: DictConfig, run_dir: Path, *, allow: tuple[str, ...], messages: Console, quiet: bool
) -> Parts:
    """Builds and checks the parts of a run, and says what they are.

    Args:
        cfg: The composed config.
        run_dir: Where the log is; nothing else is written there.
        allow: Packages outside netopt and Keras that `_target_` may name.
        messages: Where progress goes.

    Raises:
        InputError: The config cannot work.
        LostWorkerError: Another worker has ended before the training began.
    """
    reporter = reporter_for(messages, quiet=quiet, log=run_dir / LOG)
    keras.backend.clear_session()  # or names, and the bytes of files, would count earlier runs
    keras.utils.set_random_seed(cfg.seed)
    if cfg.deterministic:
        tf.config.experimental.enable_op_determinism()

    import_packages(allow)
    target = build(cfg.target, allow=allow, where="target")
    settings = build(cfg.train, allow=allow, where="train")
    stages = {name: build(node, allow=allow, where=f"opt.{name}") for name, node in cfg.opt.items()}
    trackers = {
        name: build(node, allow=allow, where=f"tracking.{name}")
        for name, node in cfg.get("tracking", {}).items()
    }
    require_epochs(stages, settings.epochs)
    arch = build(cfg.arch, allow=allow, where="arch", partial=True)
    data = load_data(cfg, allow)
    with noticing_lost_workers(target.workers), target.strategy.scope():
        network = build_network(arch, data)
        plan(network, stages, lambda arch, classes=None: build_network(arch, data, classes), data)
    told = {"tensorboard": TensorBoard(), **trackers} if target.is_chief else {}
    parts = Parts(
        arch, network, stages, data, settings, target, reporter, Trackers(told, reporter.say)
    )
    _introduce(parts)
    return parts


def load_data(cfg: DictConfig, allow: tuple[str, ...]) -> Dataset:
    """Reads the data of a run for its task.

    Raises:
        InputError: They cannot be read, or the task cannot be learned from them.
    """
    task = build(cfg.task, allow=allow, where="task")
    loader = build(cfg.data, allow=allow, where="data", partial=True, seed=cfg.seed, task=task)
    if "task" in inspect.signature(loader.target).parameters:
        return loader(seed=cfg.seed, task=task)
    if not task.is_classification:
        raise ConfigError(
            f"task={task.name} cannot be learned from these data: {loader.target.__module__} reads "
            "one class a sample. Use task=classification, or data that take a task, as data=npz"
        )
    return loader(seed=cfg.seed)


@contextmanager
def recording(
    cfg: DictConfig,
    parts: Parts,
    run_dir: Path,
    *,
    command: list[str],
    started: Callable[[], object] | None,
    goes_on: bool = False,
    group: str | None = None,
) -> Iterator[Record]:
    """Opens the record of a run, and closes it as what became of the run.

    Args:
        run_dir: An existing directory: empty, or of a run that is not complete, if `goes_on`.
        command: The words that started the run.
        started: Called when there is a record.
        goes_on: Whether a run of the same config is taken up where it was left.
        group: The name of the seeds or the sweep that the run is one of.

    Raises:
        ConfigError: Another process works there, or a run has begun there that cannot be taken up.
        TrackingError: A tracker cannot begin.
        DataError: The run that has begun there did so with other data.
        LostInputError: What the run reads was lost or damaged after it had begun.
    """
    config_yaml = OmegaConf.to_yaml(cfg, resolve=True)
    with held(run_dir):
        if has_record(run_dir):
            if not goes_on:
                raise ConfigError(
                    f"{run_dir} holds a run that is not complete, and this one cannot go on with "
                    "it: choose another directory"
                )
            refuse_another_config(run_dir, config_yaml)
            refuse_other_data(run_dir, parts.data.fingerprint)
            parts.reporter.say(f"goes on with the run in {run_dir}")
        record = Record(
            run_dir,
            config_yaml=config_yaml,
            command=command,
            seed=cfg.seed,
            facts={
                "config": OmegaConf.to_container(cfg, resolve=True),
                "dataset": _describe(parts.data),
                "pipeline": list(parts.stages),
            },
            trackers=parts.trackers,
            group=group,
        )
        for change in record.changes:
            parts.reporter.say(f"warning: {change}; what is done is kept as it is")
        with _closing(record):
            if started is not None:
                started()
            yield record


@contextmanager
def _closing(record: Record) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        record.finish("interrupted")
        raise
    except (DataError, ArchError) as error:  # all of it could be read when the run began
        record.finish("failed", str(error))
        raise LostInputError(str(error)) from error
    except NetoptError as error:
        record.finish("failed", str(error))
        raise
    except Exception as error:
        record.finish("failed", f"{type(error).__name__}: {error}")
        raise
    record.finish("completed")


def _introduce(parts: Parts) -> None:
    network, data = parts.network, parts.data
    shape = "x".join(map(str, data.shape))
    rest = f", {data.unlabeled_count:,} without label" if data.unlabeled is not None else ""
    parts.reporter.say(
        f"{network.model.name} ({count_text(network.model.count_params())} parameters) on "
        f"{data.name} ({shape}, {_outputs_text(data)}; {len(data.train):,} train{rest}, "
        f"{len(data.validation):,} validation, {len(data.test):,} test); "
        f"stages: {', '.join(parts.stages) or 'none'}"
    )
    for note in data.notes:
        parts.reporter.say(f"{data.name}: {note}")
    if parts.settings.epochs == 0:
        parts.reporter.say("train.epochs=0: the baseline is the network as the arch gives it")
    if parts.settings.batch_size > len(data.train):
        parts.reporter.say(
            f"train.batch_size={parts.settings.batch_size} is more than the training split: each "
            "batch is the whole split"
        )


def _outputs_text(data: Dataset) -> str:
    if data.task.is_classification:
        return f"{data.classes} classes"
    return f"{data.task.name} of {data.classes} outputs"


def _describe(data: Dataset) -> dict[str, Any]:
    return {
        "name": data.name,
        "shape": data.shape,
        "task": data.task.name,
        "metric": data.task.metric,
        "protocol": data.task.protocol,
        "inputs": data.inputs.describe(),
        "classes": data.classes,
        "train": len(data.train),
        "unlabeled": data.unlabeled_count,
        "validation": len(data.validation),
        "test": len(data.test),
        "notes": list(data.notes),
        "fingerprint_sha256": data.fingerprint,
    }
