"""Weights & Biases: a run in the run directory, sent when WANDB_MODE=online."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netopt_cli.contracts import TrackedRun
from netopt_cli.observer import Epoch
from netopt_cli.tracked import curves_of_stage, figures, require_packages

if TYPE_CHECKING:
    import wandb

_ENVIRONMENT = {
    "WANDB_MODE": "offline",
    "WANDB_PROJECT": "netopt",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    # A server that does not answer does not hold a run up; what it has not got is on the disk.
    "WANDB_INIT_TIMEOUT": "20",
    "WANDB_FINISH_TIMEOUT": "120",
    # Seconds until what is told is in the file: 15 of W&B's own would be lost by a kill.
    "WANDB__TRANSACTION_LOG_FLUSH_INTERVAL": "1",
}
"""What holds where the user has set nothing."""

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class WandB:
    """A run of the project `netopt`, or that of WANDB_PROJECT.

    Nothing goes out but what netopt tells: neither the terminal, which is netopt's, nor the source,
    nor what W&B finds out about the machine.

    Args:
        models: Whether the networks and files of the stages are uploaded too.
    """

    def __init__(self, models: bool = False) -> None:
        require_packages("tracking=wandb", "wandb")
        self._models = models

    def begin(self, run: TrackedRun, known: str | None) -> str:
        self._folder = run.folder
        self._step = run.epochs
        self._stages: set[str] = set()
        home = Path(os.environ.get("WANDB_DIR") or run.folder) / "wandb"
        is_new = not home.exists()
        for name, value in {**_ENVIRONMENT, "WANDB_CACHE_DIR": str(home / "cache")}.items():
            os.environ.setdefault(name, value)
        try:
            self._run = _begun(home.parent, run, known)
        except Exception:
            if is_new:
                shutil.rmtree(home, ignore_errors=True)
            raise
        found: str = self._run.id
        return found

    def epoch(self, epoch: Epoch) -> None:
        axis = f"{epoch.stage}/epoch"
        if epoch.stage not in self._stages:
            self._stages.add(epoch.stage)
            self._run.define_metric(f"{epoch.stage}/*", step_metric=axis)
        # The steps of W&B go up over all trainings, also from one process to the next.
        self._run.log({axis: epoch.epoch, **curves_of_stage(epoch)}, step=self._step)
        self._step += 1

    def row(self, row: Mapping[str, Any]) -> None:
        self._run.summary.update(figures(row))

    def end(self, status: str, files: Sequence[Path], models: Sequence[Path]) -> None:
        own = Path(self._run.dir)
        for path in (*files, *(models if self._models else ())):
            # In a folder, for W&B has a config.yaml of its own.
            copy = own / "netopt" / path.relative_to(self._folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            self._run.save(copy, base_path=own, policy="now")
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status == "completed" else 1)


def _begun(folder: Path, run: TrackedRun, known: str | None) -> wandb.Run:
    import wandb  # reads the environment

    goes_on = known is not None and _RUN_ID.fullmatch(known)
    return wandb.init(
        dir=str(folder),
        id=known if goes_on else None,
        resume="allow" if goes_on else None,
        name=run.name,
        group=run.group,
        config={**run.config, "run": dict(run.tags)},
        settings=wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            finish_timeout_raises=True,
            host="",
            save_code=False,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
    )
