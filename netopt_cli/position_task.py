"""What the tasks have in common that give every position of a sample one class: pixels, steps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from netopt_cli.errors import DataError
from netopt_cli.tasks import Outputs, Sources, Task, class_names

if TYPE_CHECKING:
    import tensorflow as tf

UNLABELED = -1
"""The label of a position that does not count."""


class PositionTask(Task):
    """Softmax cross-entropy (nats) over the logits of the classes at each position, the mean over
    the labelled positions of a sample.

    Labels are (n, *positions), int32, `UNLABELED` or classes from 0; outputs (n, *positions,
    classes).
    """

    @abstractmethod
    def positions(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The positions of a sample of that shape."""

    def outputs(self, sources: Sources, names: Sequence[str] | None) -> Outputs:
        for split, source in sources.items():
            wanted, found = self.positions(source.shape), source.y.shape[1:]
            if wanted != found:
                raise DataError(
                    f"The {split} labels of task={self.name} must be one for each position of a "
                    f"sample, (samples, {', '.join(map(str, wanted))}). Received: shape "
                    f"{source.y.shape} for samples of {source.shape}."
                )
        known = class_names(sources, names)
        return Outputs(len(known), known)

    def guessing_loss(self, outputs: int) -> float:
        return float(np.log(outputs))

    def targets(self, x: tf.Tensor, labels: tf.Tensor, outputs: int) -> tf.Tensor:
        """Zeros where there is no label."""
        import tensorflow as tf

        return tf.one_hot(labels, outputs)

    def losses(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        each = tf.nn.softmax_cross_entropy_with_logits(tf.cast(y, outputs.dtype), outputs)
        return _sums(each) / tf.maximum(_sums(tf.cast(y, outputs.dtype)), 1)

    def imitation(self, outputs: tf.Tensor, wanted: tf.Tensor, temperature: float) -> tf.Tensor:
        """T² times the divergence of the softened probabilities, the mean over the positions."""
        import tensorflow as tf

        soft = tf.nn.softmax(wanted / temperature)
        cross = tf.nn.softmax_cross_entropy_with_logits(soft, outputs / temperature)
        own = tf.nn.softmax_cross_entropy_with_logits(soft, wanted / temperature)
        divergence = tf.reshape(cross - own, (tf.shape(cross)[0], -1))
        return temperature**2 * tf.reduce_mean(divergence, axis=-1)

    def batch_score(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """The share of labelled positions whose class is right."""
        import tensorflow as tf

        is_labelled = tf.reduce_sum(y, axis=-1)
        hit = tf.cast(tf.argmax(outputs, axis=-1) == tf.argmax(y, axis=-1), tf.float32)
        return tf.reduce_sum(hit * is_labelled) / tf.maximum(tf.reduce_sum(is_labelled), 1)

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        """(n, *positions), the class of each."""
        return outputs.argmax(axis=-1).astype(np.int32)

    def same(self, outputs: np.ndarray, others: np.ndarray) -> float | None:
        """The fraction of positions."""
        return float(np.mean(outputs.argmax(axis=-1) == others.argmax(axis=-1)))


def confusion_of(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(classes, classes): positions of each class by what they were taken for."""
    is_labelled = labels != UNLABELED
    true, said = labels[is_labelled], answers[is_labelled]
    classes = int(max(true.max(initial=0), said.max(initial=0))) + 1
    counts = np.bincount(true.astype(np.int64) * classes + said, minlength=classes**2)
    return counts.reshape(classes, classes)


def _sums(x: tf.Tensor) -> tf.Tensor:
    """(batch, …) -> (batch,)."""
    import tensorflow as tf

    return tf.reduce_sum(tf.reshape(x, (tf.shape(x)[0], -1)), axis=-1)
