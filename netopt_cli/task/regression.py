"""Real numbers, one or several a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from netopt_cli.errors import DataError
from netopt_cli.tasks import Outputs, Sources, Task, numbers

if TYPE_CHECKING:
    import tensorflow as tf

    from netopt_cli.dataset import Source


@dataclass(frozen=True)
class Regression(Task):
    """The mean squared error; its root counts, in the units of the labels.

    Networks learn labels of mean 0 and deviation 1, whose scale is that of the training split:
    the same learning rates suit all units. Figures and predictions are in the labels' own.

    Labels are (n,) or (n, values) finite numbers.

    Attributes:
        mean, deviation: Of the labels of the training split, (values,); found out by the run.
    """

    name: ClassVar[str] = "regression"

    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    @property
    def metric(self) -> str:
        return "rmse"

    def labels(self, split: str, y: np.ndarray) -> np.ndarray:
        """Returns (n, values) float32."""
        y = numbers(split, y).astype(np.float32)
        y = y[:, np.newaxis] if y.ndim == 1 else y
        if y.ndim != 2 or not y.size:
            raise DataError(
                f"The {split} labels of a regression must be (samples,) or (samples, values). "
                f"Received: shape {y.shape}."
            )
        if not np.isfinite(y).all():
            raise DataError(f"The {split} labels must be finite. Received: NaN or infinity.")
        return y

    def outputs(self, sources: Sources, names: Sequence[str] | None) -> Outputs:
        counts = {split: source.y.shape[1] for split, source in sources.items()}
        if len(set(counts.values())) > 1:
            raise DataError(f"All splits need as many values a sample. Received: {counts}.")
        count = counts["train"]
        if names is not None and len(names) != count:
            raise DataError(f"{count} values need as many names. Received: {len(names)}.")
        return Outputs(count, tuple(names or (f"value {i}" for i in range(1, count + 1))))

    def fitted(self, train: Source) -> Task:
        deviation = train.y.std(axis=0, dtype=np.float64)
        deviation[deviation == 0] = 1.0
        mean = train.y.mean(axis=0, dtype=np.float64)
        return replace(self, mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist()))

    def guessing_loss(self, outputs: int) -> float:
        return 1.0

    def targets(self, x: tf.Tensor, labels: tf.Tensor, outputs: int) -> tf.Tensor:
        return (labels - np.asarray(self.mean, np.float32)) / np.asarray(self.deviation, np.float32)

    def losses(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        squared = tf.math.squared_difference(outputs, tf.cast(y, outputs.dtype))
        return tf.reduce_mean(squared, axis=-1)

    def batch_score(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        error = (outputs - y) * np.asarray(self.deviation, np.float32)
        return tf.sqrt(tf.reduce_mean(tf.square(error)))

    def scores(
        self, labels: np.ndarray, outputs: np.ndarray, losses: np.ndarray
    ) -> dict[str, float]:
        error = self._in_units(outputs) - labels
        spread = float(np.square(labels - labels.mean(axis=0)).sum())
        return {
            "rmse": float(np.sqrt(np.square(error).mean())),
            "mae": float(np.abs(error).mean()),
            "r2": 1.0 - float(np.square(error).sum()) / spread if spread else float("nan"),
        }

    def decoded(self, outputs: np.ndarray, names: Sequence[str]) -> list[Mapping[str, Any]]:
        return [
            {name: round(float(value), 6) for name, value in zip(names, row, strict=True)}
            for row in self._in_units(outputs)
        ]

    def _in_units(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.astype(np.float64) * self.deviation + self.mean
