"""What is unlike the samples that a network has learned to give back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from netopt_cli.errors import DataError
from netopt_cli.tasks import Outputs, Sources, Task, class_numbers

if TYPE_CHECKING:
    import tensorflow as tf

    from netopt_cli.dataset import Source

LOW_RATE = 0.1
"""Rate of false alarms up to which `pauc` is the area."""


@dataclass(frozen=True)
class Anomaly(Task):
    """The mean squared error between a sample and what the network makes of it; the area under the
    ROC curve counts, of the anomalies of a split against its normal samples, by that error.

    The network learns from normal samples alone. A validation split that has both chooses the epoch
    by the AUROC; one without anomalies by its loss.

    Labels are (n,) of 0 for normal and 1 for an anomaly, or classes.

    Attributes:
        normal_classes: The classes that are normal, all others are anomalies; empty where labels
            are 0 and 1 already.
    """

    name: ClassVar[str] = "anomaly"

    normal_classes: tuple[Annotated[int, Field(ge=0)], ...] = ()

    @property
    def metric(self) -> str:
        return "auroc"

    @property
    def protocol(self) -> str:
        normal = ", ".join(map(str, sorted(set(self.normal_classes))))
        return f"classes {normal} normal" if normal else ""

    def labels(self, split: str, y: np.ndarray) -> np.ndarray:
        """Returns (n,) int32, of classes still where some of them are normal."""
        y = class_numbers(split, y)
        if not self.normal_classes and len(y) and y.max() > 1:
            raise DataError(
                f"The {split} labels of task=anomaly must be 0 (normal) and 1 (anomaly); of other "
                f"classes say which are normal: task.normal_classes=[0,1]. Received: {y.max()}."
            )
        return y

    def outputs(self, sources: Sources, names: Sequence[str] | None) -> Outputs:
        """As many as a sample has values."""
        missing = set(self.normal_classes) - set(sources["train"].y.tolist())
        if missing:
            raise DataError(
                f"task.normal_classes must be classes of the train split, 0 … "
                f"{sources['train'].y.max()}. Received: {min(missing)}."
            )
        return Outputs(math.prod(sources["train"].shape))

    def strata(self, y: np.ndarray) -> np.ndarray:
        return y

    def prepared(self, sources: Sources, seed: int) -> Sources:
        """Leaves the anomalies out of the training split.

        Raises:
            DataError: No normal sample is left to learn from, or the test split does not have both.
        """
        marked = {split: self._marked(source) for split, source in sources.items()}
        normal = np.flatnonzero(marked["train"].y == 0)
        if not len(normal):
            raise DataError("task=anomaly learns from normal samples, and the train split has none")
        if len(np.unique(marked["test"].y)) < 2:
            only = "anomalies" if marked["test"].y.any() else "normal samples"
            raise DataError(
                "task=anomaly needs normal samples and anomalies in the test split. Received: "
                f"{only} alone."
            )
        return marked | {"train": marked["train"].take(normal)}

    def _marked(self, source: Source) -> Source:
        if not self.normal_classes:
            return source
        return replace(source, y=(~np.isin(source.y, self.normal_classes)).astype(np.int32))

    def targets(self, x: tf.Tensor, labels: tf.Tensor, outputs: int) -> tf.Tensor:
        return _flat(x)

    def losses(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        squared = tf.math.squared_difference(_flat(outputs), tf.cast(y, outputs.dtype))
        return tf.reduce_mean(squared, axis=-1)

    def scores(
        self, labels: np.ndarray, outputs: np.ndarray, losses: np.ndarray
    ) -> dict[str, float]:
        """Not a number where a split has one kind of samples alone."""
        from sklearn.metrics import roc_auc_score

        if len(np.unique(labels)) < 2:
            return {"auroc": math.nan, "pauc": math.nan}
        return {
            "auroc": float(roc_auc_score(labels, losses)),
            "pauc": float(roc_auc_score(labels, losses, max_fpr=LOW_RATE)),
        }

    def told(
        self, x: np.ndarray, outputs: np.ndarray, names: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        """The mean squared error of each sample, which is larger of an anomaly."""
        errors = np.square(x - outputs.reshape(x.shape)).reshape(len(x), -1).mean(axis=1)
        return [{"error": float(f"{error:.6g}")} for error in errors]


def _flat(x: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return tf.reshape(x, (tf.shape(x)[0], -1))
