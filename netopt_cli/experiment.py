"""One run, from a resolved config to a complete run directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from netopt_cli.components import build
from netopt_cli.export.formats import further
from netopt_cli.measuring import Measuring
from netopt_cli.pipeline import Pipeline
from netopt_cli.preparation import prepare, recording
from netopt_cli.trainings import Trainings


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
    started: Callable[[], object] | None = None,
) -> Experiment:
    """Runs one experiment.

    Everything is built and checked before anything is written or trained.

    Args:
        cfg: The composed config.
        run_dir: An existing, empty directory.
        allow: Packages outside netopt and Keras that `_target_` may name.
        command: The words that started the run, for the record.
        messages: Where progress goes.
        started: Called once the run has begun: there is a record.

    Raises:
        InputError: The config cannot work.
        RunError: The run failed on the way; its record says how far it came.
    """
    formats = further(cfg.get("export", ()))
    parts = prepare(cfg, run_dir, allow=allow, messages=messages, quiet=quiet)
    robustness = None
    if "robustness" in cfg:
        wanted = build(cfg.robustness, allow=allow, where="robustness")
        robustness = wanted.on(parts.data, cfg.seed)
    with recording(cfg, parts, run_dir, command=command, started=started) as record:
        trainings = Trainings(
            parts.arch, parts.data, parts.target, parts.settings,
            seed=cfg.seed, record=record, reporter=parts.reporter,
        )  # fmt: skip
        measuring = Measuring(trainings, formats=formats, robustness=robustness)
        pipeline = Pipeline(parts.stages, trainings, measuring, control=cfg.control)
        return Experiment(run_dir, pipeline.run(parts.network))
