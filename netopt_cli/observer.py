"""What the training loop tells of itself while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Epoch:
    """One row of `history.csv`. Losses and accuracies of training include regularization and
    augmentation; those of validation do not. `learning_rate` is that of the epoch's first step."""

    stage: str
    epoch: int
    epochs: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float


class Observer(Protocol):
    """Is told of a training's progress, at most once a compiled call."""

    def training_starts(self, stage: str, epochs: int, steps: int) -> None: ...

    def taken_up(self, epochs: Sequence[Epoch], origin: str) -> None:
        """The training goes on after these epochs, or is over with them: see `FitResult.origin`."""
        ...

    def steps_done(self, step: int, loss: float, accuracy: float) -> None: ...

    def epoch_ends(self, epoch: Epoch) -> None: ...

    def training_ends(self) -> None: ...
