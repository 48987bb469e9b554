"""One class for every step of a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from netopt_cli.errors import DataError
from netopt_cli.position_task import UNLABELED, PositionTask, confusion_of
from netopt_cli.tasks import numbers, whole_numbers


@dataclass(frozen=True)
class Tagging(PositionTask):
    """Softmax cross-entropy (nats) of each labelled step; the share of them that is right counts.

    Labels are (n, steps) whole numbers, -1 where a step does not count, as padding.
    """

    name: ClassVar[str] = "tagging"

    @property
    def metric(self) -> str:
        return "token_accuracy"

    def labels(self, split: str, y: np.ndarray) -> np.ndarray:
        """Returns (n, steps) int32."""
        y = numbers(split, y)
        if y.ndim != 2:
            raise DataError(
                f"The {split} labels of task=tagging must be (samples, steps), the class of every "
                f"step. Received: shape {y.shape}."
            )
        return whole_numbers(split, y, least=UNLABELED)

    def positions(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[:1]

    def scores(
        self, labels: np.ndarray, outputs: np.ndarray, losses: np.ndarray
    ) -> dict[str, float]:
        counts = confusion_of(labels, outputs)
        right, there = np.diag(counts), counts.sum(axis=1)
        said = counts.sum(axis=0)
        f1 = 2 * right / np.maximum(there + said, 1)
        return {
            "token_accuracy": float(right.sum() / max(1, counts.sum())),
            "f1_macro": float(np.mean(f1[there + said > 0])),
        }

    def decoded(self, outputs: np.ndarray, names: Sequence[str]) -> list[Mapping[str, Any]]:
        """The class of each step."""
        return [{"tags": [names[tag] for tag in one]} for one in self.answers(outputs)]
