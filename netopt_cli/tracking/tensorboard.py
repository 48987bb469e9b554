"""TensorBoard: logs of every training in the run directory, always."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from netopt_cli.contracts import TrackedRun
from netopt_cli.files import storage
from netopt_cli.observer import Epoch
from netopt_cli.tracked import curves


class TensorBoard:
    """Event files in `tensorboard/STAGE/`: `tensorboard --logdir RUN/tensorboard`."""

    def __init__(self) -> None:
        self._writers: dict[str, Any] = {}

    def begin(self, run: TrackedRun, known: str | None) -> None:
        self._folder = run.folder / "tensorboard"

    def epoch(self, epoch: Epoch) -> None:
        with storage(self._folder):
            if epoch.stage not in self._writers:
                logs = str(self._folder / epoch.stage)
                self._writers[epoch.stage] = tf.summary.create_file_writer(logs)
            writer = self._writers[epoch.stage]
            with writer.as_default(step=epoch.epoch):
                for name, value in curves(epoch).items():
                    tf.summary.scalar(name, value)
            writer.flush()

    def row(self, row: Mapping[str, Any]) -> None:
        """Nothing: TensorBoard shows curves."""

    def end(self, status: str, files: Sequence[Path], models: Sequence[Path]) -> None:
        for writer in self._writers.values():
            writer.close()
