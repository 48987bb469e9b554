"""One class a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from netopt_cli.tasks import Outputs, Sources, Task, class_names, class_numbers

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Classification(Task):
    """Softmax cross-entropy (nats) over the logits of the classes; accuracy counts.

    Labels are (n,) whole numbers 0 … classes - 1, (n, 1), or one-hot (n, classes).
    """

    name: ClassVar[str] = "classification"
    is_classification: ClassVar[bool] = True
    augments: ClassVar[bool] = True

    @property
    def metric(self) -> str:
        return "accuracy"

    def labels(self, split: str, y: np.ndarray) -> np.ndarray:
        """Returns (n,) int32."""
        return class_numbers(split, y)

    def outputs(self, sources: Sources, names: Sequence[str] | None) -> Outputs:
        found = class_names(sources, names)
        return Outputs(len(found), found)

    def strata(self, y: np.ndarray) -> np.ndarray:
        return y

    def guessing_loss(self, outputs: int) -> float:
        return math.log(outputs)

    def targets(self, x: tf.Tensor, labels: tf.Tensor, outputs: int) -> tf.Tensor:
        import tensorflow as tf

        return tf.one_hot(labels, outputs)

    def losses(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        return tf.nn.softmax_cross_entropy_with_logits(tf.cast(y, outputs.dtype), outputs)

    def average(self, values: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return labeled_mean(values, y)

    def batch_score(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        hit = tf.argmax(outputs, axis=-1) == tf.argmax(y, axis=-1)
        return labeled_mean(tf.cast(hit, tf.float32), y)

    def scores(
        self, labels: np.ndarray, outputs: np.ndarray, losses: np.ndarray
    ) -> dict[str, float]:
        return {"accuracy": int(np.sum(outputs.argmax(axis=-1) == labels)) / len(labels)}

    def same(self, outputs: np.ndarray, others: np.ndarray) -> float | None:
        return float(np.mean(outputs.argmax(axis=-1) == others.argmax(axis=-1)))

    def decoded(self, outputs: np.ndarray, names: Sequence[str]) -> list[Mapping[str, Any]]:
        """The likeliest class of each sample and its probability, and those of all classes."""
        shifted = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        probabilities = shifted / shifted.sum(axis=-1, keepdims=True)
        return [
            {
                "class": names[int(row.argmax())],
                "probability": round(float(row.max()), 4),
                "probabilities": {
                    name: round(float(value), 4) for name, value in zip(names, row, strict=True)
                },
            }
            for row in probabilities
        ]


def labeled_mean(values: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """The mean over the samples that have a label, whose `y` is not zeros; 0 where none has.

    What a zero label is multiplied with has to be left out: TensorFlow takes the gradient of a
    cross-entropy to be softmax - y, as if each y added up to 1.
    """
    import tensorflow as tf

    is_labeled = tf.cast(tf.reduce_any(y > 0, axis=-1), values.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(values * is_labeled), tf.reduce_sum(is_labeled))


CLASSIFICATION = Classification()
"""What is to be learned where nothing else is said."""
