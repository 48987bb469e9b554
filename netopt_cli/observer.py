"""What the training loop tells of itself while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from netopt_cli.metrics import ACCURACY


@dataclass(frozen=True)
class Epoch:
    """One row of `history.csv`. Losses and scores of training include regularization and
    augmentation; those of validation do not. `metric` says what the scores are of; that of training
    is NaN where a batch has none. `learning_rate` is that of the epoch's first step."""

    stage: str
    epoch: int
    epochs: int
    loss: float
    score: float
    val_loss: float
    val_score: float
    learning_rate: float
    seconds: float
    samples_per_second: float
    metric: str = ACCURACY

    def columns(self) -> dict[str, Any]:
        """The columns of `history.csv`, where a score is called by its metric."""
        names = {"score": self.metric, "val_score": f"val_{self.metric}"}
        return {names.get(k, k): value for k, value in vars(self).items() if k != "metric"}


class Observer(Protocol):
    """Is told of a training's progress, at most once a compiled call."""

    def training_starts(
        self, stage: str, epochs: int, steps: int, metric: str = ACCURACY
    ) -> None: ...

    def taken_up(self, epochs: Sequence[Epoch], origin: str) -> None:
        """The training goes on after these epochs, or is over with them: see `FitResult.origin`."""
        ...

    def steps_done(self, step: int, loss: float, score: float) -> None: ...

    def epoch_ends(self, epoch: Epoch) -> None: ...

    def training_ends(self) -> None: ...
