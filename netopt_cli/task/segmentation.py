"""One class for every pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from netopt_cli.errors import DataError
from netopt_cli.position_task import UNLABELED, PositionTask, confusion_of
from netopt_cli.tasks import numbers, whole_numbers

IGNORED = 255
"""Besides `UNLABELED`: what data sets of bytes have for pixels without a class."""


@dataclass(frozen=True)
class Segmentation(PositionTask):
    """Softmax cross-entropy (nats) of each labelled pixel; the mean IoU counts: of each class that
    is there, the pixels that are right over those that are of the class or taken for it.

    Labels are (n, height, width) whole numbers, -1 or 255 where a pixel does not count.
    """

    name: ClassVar[str] = "segmentation"

    @property
    def metric(self) -> str:
        return "mean_iou"

    def labels(self, split: str, y: np.ndarray) -> np.ndarray:
        """Returns (n, height, width) int32."""
        y = numbers(split, y)
        if y.ndim == 4 and y.shape[-1] == 1:
            y = y[..., 0]
        if y.ndim != 3:
            raise DataError(
                f"The {split} labels of task=segmentation must be (samples, height, width), the "
                f"class of every pixel. Received: shape {y.shape}."
            )
        y = whole_numbers(split, y, least=UNLABELED)
        return np.where(y == IGNORED, UNLABELED, y)

    def positions(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[:2]

    def scores(
        self, labels: np.ndarray, outputs: np.ndarray, losses: np.ndarray
    ) -> dict[str, float]:
        counts = confusion_of(labels, outputs)
        right = np.diag(counts)
        union = counts.sum(axis=0) + counts.sum(axis=1) - right
        return {
            "mean_iou": float(np.mean(right[union > 0] / union[union > 0])),
            "pixel_accuracy": float(right.sum() / max(1, counts.sum())),
        }

    def decoded(self, outputs: np.ndarray, names: Sequence[str]) -> list[Mapping[str, Any]]:
        """The share of the pixels of each class."""
        return [
            {name: round(float(np.mean(one == index)), 4) for index, name in enumerate(names)}
            for one in self.answers(outputs)
        ]
