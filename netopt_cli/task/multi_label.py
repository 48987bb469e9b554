"""Any number of classes a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from netopt_cli.errors import DataError
from netopt_cli.tasks import Outputs, Sources, Task, numbers

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class MultiLabel(Task):
    """Sigmoid cross-entropy (nats), the mean over the classes; the macro F1 counts, of the classes
    whose probability is above one half.

    Labels are (n, classes) of 0 and 1.
    """

    name: ClassVar[str] = "multi_label"
    augments: ClassVar[bool] = True

    @property
    def metric(self) -> str:
        return "f1_macro"

    def labels(self, split: str, y: np.ndarray) -> np.ndarray:
        """Returns (n, classes) float32."""
        y = numbers(split, y)
        if y.ndim != 2 or not np.isin(y, (0, 1)).all():
            raise DataError(
                f"The {split} labels of task=multi_label must be (samples, classes) of 0 and 1. "
                f"Received: shape {y.shape}, {y.min() if y.size else ''} … "
                f"{y.max() if y.size else ''}."
            )
        return y.astype(np.float32)

    def outputs(self, sources: Sources, names: Sequence[str] | None) -> Outputs:
        counts = {split: source.y.shape[1] for split, source in sources.items()}
        if len(set(counts.values())) > 1:
            raise DataError(f"All splits need as many classes. Received: {counts}.")
        count = counts["train"]
        if names is not None and len(names) != count:
            raise DataError(f"{count} classes need as many names. Received: {len(names)}.")
        return Outputs(count, tuple(names or map(str, range(count))))

    def guessing_loss(self, outputs: int) -> float:
        return float(np.log(2.0))

    def targets(self, x: tf.Tensor, labels: tf.Tensor, outputs: int) -> tf.Tensor:
        return labels

    def losses(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        y = tf.cast(y, outputs.dtype)
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(y, outputs), axis=-1)

    def imitation(self, outputs: tf.Tensor, wanted: tf.Tensor, temperature: float) -> tf.Tensor:
        """T² times the cross-entropy of softened probabilities, less the teacher's entropy."""
        import tensorflow as tf

        soft = tf.sigmoid(wanted / temperature)
        cross = tf.nn.sigmoid_cross_entropy_with_logits(soft, outputs / temperature)
        own = tf.nn.sigmoid_cross_entropy_with_logits(soft, wanted / temperature)
        return temperature**2 * tf.reduce_mean(cross - own, axis=-1)

    def batch_score(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """The micro F1, which a batch has though a class may be missing in it."""
        import tensorflow as tf

        found = tf.cast(outputs > 0, tf.float32)
        return 2 * tf.reduce_sum(found * y) / (tf.reduce_sum(found) + tf.reduce_sum(y) + 1e-9)

    def scores(
        self, labels: np.ndarray, outputs: np.ndarray, losses: np.ndarray
    ) -> dict[str, float]:
        from sklearn.metrics import f1_score

        found = outputs > 0
        return {
            "f1_macro": float(f1_score(labels > 0, found, average="macro", zero_division=0)),
            "f1_micro": float(f1_score(labels > 0, found, average="micro", zero_division=0)),
            "exact_match": float((found == (labels > 0)).all(axis=1).mean()),
        }

    def same(self, outputs: np.ndarray, others: np.ndarray) -> float | None:
        return float(((outputs > 0) == (others > 0)).mean())

    def decoded(self, outputs: np.ndarray, names: Sequence[str]) -> list[Mapping[str, Any]]:
        """The classes of each sample, and the probabilities of all."""
        probabilities = 1 / (1 + np.exp(-outputs.astype(np.float64)))
        return [
            {
                "classes": [n for n, p in zip(names, row, strict=True) if p > 0.5],
                "probabilities": {n: round(float(p), 4) for n, p in zip(names, row, strict=True)},
            }
            for row in probabilities
        ]
