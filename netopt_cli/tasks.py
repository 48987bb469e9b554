"""What a network is to learn: the labels, the loss, and the figures that say how well it does.

`Task` is the base; the `task` group has one a file. Adding a task touches two files, the module
with its class and its YAML; a figure that no task has had yet is named in `metrics` too.

TensorFlow is imported when a tensor is asked for, not before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from netopt_cli.errors import DataError
from netopt_cli.metrics import metric_named

if TYPE_CHECKING:
    import tensorflow as tf

    from netopt_cli.boxes import Anchors
    from netopt_cli.dataset import Source

Sources = dict[str, "Source"]
"""By the name of the split: `train`, and `validation` and `test` where there are such."""


@dataclass(frozen=True)
class Outputs:
    """What the outputs of a network stand for.

    Attributes:
        count: Values that the arch is to give for a sample.
        names: One for each class or value; empty where they have none.
    """

    count: int
    names: tuple[str, ...] = ()


class Task(ABC):
    """A task. Its outputs are raw: logits where probabilities follow from them.

    Attributes:
        name: As in `task=name`.
        is_classification: Whether each sample is of one of several classes, whose logits the
            network gives: what many techniques are made for.
    """

    name: ClassVar[str]
    is_classification: ClassVar[bool] = False
    imitates: ClassVar[bool] = True
    """Whether a student can learn from the outputs of a teacher, by `imitation`."""
    augments: ClassVar[bool] = False
    """Whether the labels stay right when a sample is shifted, turned or flipped."""

    @property
    @abstractmethod
    def metric(self) -> str:
        """The figure that counts, as named in `metrics`."""

    @property
    def protocol(self) -> str:
        """How it is evaluated, where there are several ways whose figures do not compare."""
        return ""

    @property
    def anchors(self) -> Anchors | None:
        """Where boxes are looked for, of a task about boxes: an arch is built for it."""
        return None

    def rank(self, score: float) -> float:
        """The score, or what is the higher the better instead."""
        return metric_named(self.metric).goodness(score)

    @abstractmethod
    def labels(self, split: str, y: np.ndarray) -> np.ndarray:
        """Checks labels as a loader read them, and returns them as they are kept.

        Raises:
            DataError: They are not labels of this task.
        """

    def prepared(self, sources: Sources, seed: int) -> Sources:
        """The splits as this task learns from them, made of all that there are."""
        return sources

    @abstractmethod
    def outputs(self, sources: Sources, names: Sequence[str] | None) -> Outputs:
        """What a network for the splits has to give.

        Args:
            names: Of the classes or values, where a loader knows them.

        Raises:
            DataError: The splits do not belong together.
        """

    def fitted(self, train: Source) -> Task:
        """The task with what it has to know of the training split."""
        return self

    def strata(self, y: np.ndarray) -> np.ndarray:
        """(n,) whole numbers of labels: what a part of a split has in proportion."""
        return np.zeros(len(y), np.int32)

    def guessing_loss(self, outputs: int) -> float:
        """The loss of a network that knows nothing, 0 where that cannot be said."""
        return 0.0

    @abstractmethod
    def targets(self, x: tf.Tensor, labels: tf.Tensor, outputs: int) -> tf.Tensor:
        """In the graph: what the outputs are to be, float32, of labels as they are kept.

        Args:
            x: As the network gets it.
        """

    @abstractmethod
    def losses(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """In the graph: (batch,), of targets and of outputs of any float type."""

    def average(self, values: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """In the graph: the mean of values (batch,) over the samples that count."""
        import tensorflow as tf

        return tf.reduce_mean(values)

    def imitation(self, outputs: tf.Tensor, wanted: tf.Tensor, temperature: float) -> tf.Tensor:
        """In the graph: (batch,), how far outputs are from those of a teacher: the mean of the
        squared differences, unless a task knows better.

        Args:
            temperature: Divides logits, where there are such.
        """
        import tensorflow as tf

        squared = tf.math.squared_difference(outputs, wanted)
        return tf.reduce_mean(tf.reshape(squared, (tf.shape(squared)[0], -1)), axis=-1)

    def batch_score(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """In the graph: the figure that counts, or one like it, of a training batch; not a number
        where a batch has none."""
        import tensorflow as tf

        return tf.constant(np.nan)

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        """(n, …): what `scores` needs of outputs (n, …), where that is less to hold of a split."""
        return outputs

    @abstractmethod
    def scores(
        self, labels: np.ndarray, outputs: np.ndarray, losses: np.ndarray
    ) -> dict[str, float]:
        """The figures over a whole split, that which counts first.

        Args:
            labels: As they are kept.
            outputs: (n, …) float32, or the `answers` of a task that has others.
            losses: (n,), of `losses`.
        """

    def same(self, outputs: np.ndarray, others: np.ndarray) -> float | None:
        """The fraction of samples of which two sets of outputs say the same, where that can be."""
        return None

    def told(
        self, x: np.ndarray, outputs: np.ndarray, names: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        """What `netopt predict` says of normalized samples (n, *shape), with outputs (n, …)."""
        return self.decoded(outputs, names)

    def decoded(self, outputs: np.ndarray, names: Sequence[str]) -> list[Mapping[str, Any]]:
        """What the outputs (n, …) say of each sample, for a person: plain values."""
        return [{"output": np.asarray(one).round(6).tolist()} for one in outputs]


def class_names(sources: Sources, names: Sequence[str] | None) -> tuple[str, ...]:
    """One name a class of labels that number classes from 0; negative labels are none.

    Raises:
        DataError: A class is missing in the training split, or unknown to it.
    """
    seen = np.unique(sources["train"].y)
    seen = seen[seen >= 0]
    if names is None:
        classes = int(seen[-1]) + 1 if len(seen) else 0
        if len(seen) != classes:
            missing = int(np.argmin(np.isin(np.arange(len(seen) + 1), seen)))
            raise DataError(
                f"The train labels must number the classes from 0 without a gap. Received: "
                f"{seen[0]} … {seen[-1]}, with no sample of class {missing}."
            )
        found = tuple(str(index) for index in range(classes))
        rule = f"{classes} classes are in the train split"
    else:
        found = tuple(names)
        rule = f"{len(found)} class names are given"
    if len(seen) < 2:
        raise DataError(f"The train split needs at least 2 classes. Received: {len(seen)}.")
    for split, source in sources.items():
        if source.y.max() >= len(found):
            raise DataError(
                f"The {split} labels must be in 0 … {len(found) - 1}: {rule}. "
                f"Received: {source.y.max()}."
            )
    return found


def class_numbers(split: str, y: np.ndarray) -> np.ndarray:
    """(n,) int32 of labels (n,), (n, 1), or one-hot (n, classes).

    Raises:
        DataError: They do not give each sample one class.
    """
    y = numbers(split, y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2:
        if not (np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()):
            raise DataError(
                f"The {split} labels of shape {y.shape} are not one-hot: every row must be "
                "zeros and a single one."
            )
        y = y.argmax(axis=1)
    if y.ndim != 1:
        raise DataError(
            f"The {split} labels must be (samples,) or one-hot (samples, classes). "
            f"Received: shape {y.shape}."
        )
    return whole_numbers(split, y)


def whole_numbers(split: str, y: np.ndarray, *, least: int = 0) -> np.ndarray:
    """int32 of numbers that are whole and not below `least`.

    Raises:
        DataError: One is not.
    """
    wrong = y[(y < least) | (y != np.floor(y)) | (y > np.iinfo(np.int32).max) | ~np.isfinite(y)]
    if len(wrong):
        raise DataError(
            f"The {split} labels must be whole numbers 0 … classes - 1. Received: {wrong[0]}."
        )
    return y.astype(np.int32)


def numbers(split: str, y: np.ndarray) -> np.ndarray:
    """Raises:
    DataError: The labels are not real numbers.
    """
    if not (np.issubdtype(y.dtype, np.number) or y.dtype == np.bool_) or np.iscomplexobj(y):
        raise DataError(
            f"The {split} labels must be whole numbers 0 … classes - 1. Received: {y.dtype}."
        )
    return y
