"""One run, from a resolved config to a complete run directory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from netopt_cli.components import build
from netopt_cli.engine.checkpoints import Cache, Checkpoints
from netopt_cli.export.formats import further
from netopt_cli.lost_workers import noticing_lost_workers
from netopt_cli.measuring import Measuring
from netopt_cli.pipeline import Pipeline
from netopt_cli.preparation import prepare, recording
from netopt_cli.run_dir import CHECKPOINTS
from netopt_cli.trainings import Trainings

SHARED = "runs/.cache"
"""Where trainings are that runs share, unless NETOPT_CACHE names another folder. A config cannot:
what it names would be written to."""


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
    group: str | None = None,
) -> Experiment:
    """Runs one experiment.

    Everything is built and checked before anything is written or trained.

    Args:
        cfg: The composed config.
        run_dir: An existing directory, empty or of a run of this config that is not complete: it
            goes on then, and ends as if it had not been interrupted.
        allow: Packages outside netopt and Keras that `_target_` may name.
        command: The words that started the run, for the record.
        messages: Where progress goes.
        started: Called once the run has begun: there is a record.
        group: The name of the seeds or the sweep that the run is one of.

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
    is_alone = parts.target.workers == 1  # several workers do not go on
    with (
        recording(
            cfg, parts, run_dir, command=command, started=started, goes_on=is_alone, group=group
        ) as record,
        noticing_lost_workers(parts.target.workers),
    ):
        checkpoints = _checkpoints(cfg, run_dir, allow) if is_alone else None
        trainings = Trainings(
            parts.arch, parts.data, parts.target, parts.settings,
            seed=cfg.seed, record=record, reporter=parts.reporter,
            checkpoints=checkpoints,
        )  # fmt: skip
        measuring = Measuring(trainings, formats=formats, robustness=robustness)
        pipeline = Pipeline(
            parts.stages, trainings, measuring, control=cfg.control, lineages=_lineages(cfg)
        )
        rows = pipeline.run(parts.network)
    shutil.rmtree(run_dir / CHECKPOINTS, ignore_errors=True)
    return Experiment(run_dir, rows)


def _checkpoints(cfg: DictConfig, run_dir: Path, allow: tuple[str, ...]) -> Checkpoints:
    """Where the trainings of the run are kept, and those that it shares with others."""
    folder = os.environ.get("NETOPT_CACHE", SHARED)
    # The code of other packages is not in the name of a training.
    is_shared = cfg.cache and folder and not allow
    shared = Cache(Path(folder), cfg.cache_max_megabytes * 10**6) if is_shared else None
    return Checkpoints(run_dir / CHECKPOINTS, cfg.checkpoint_seconds, shared)


def _lineages(cfg: DictConfig) -> dict[str, str]:
    """The settings of each stage and of those before it, as text."""
    settings = OmegaConf.to_container(cfg.opt, resolve=True)
    assert isinstance(settings, dict)
    stages = list(settings.items())
    return {
        str(name): json.dumps(stages[: number + 1], default=str)
        for number, (name, _) in enumerate(stages)
    }
