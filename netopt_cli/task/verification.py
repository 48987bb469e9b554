"""Whether two samples are of one class, which may be one that was never seen in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from netopt_cli.errors import DataError
from netopt_cli.tasks import Outputs, Sources, Task, class_numbers

if TYPE_CHECKING:
    import tensorflow as tf

    from netopt_cli.dataset import Source

_TEST_SEED = 0
"""The pairs of the test split are the same in every run."""


@dataclass(frozen=True)
class Verification(Task):
    """Sigmoid cross-entropy (nats) of one logit, that two samples are of one class; the equal error
    rate counts: where as many pairs of one class are refused as others are taken for one.

    Labels are classes, as of a classification. Pairs are made within each split, of one class and
    of two in turns; a sample is (2, *shape), and all of them are held in memory.

    Attributes:
        pairs_a_sample: Pairs of a split, for each of its samples.
        held_out_classes: Classes that the test pairs are made of, and no others; training and
            validation do not see them. Empty: every split has those that it has.
    """

    name: ClassVar[str] = "verification"

    pairs_a_sample: Annotated[int, Field(ge=1)] = 4
    held_out_classes: tuple[Annotated[int, Field(ge=0)], ...] = ()

    @property
    def metric(self) -> str:
        return "eer"

    @property
    def protocol(self) -> str:
        unseen = ", ".join(map(str, sorted(set(self.held_out_classes))))
        of = f", of unseen classes {unseen}" if unseen else ""
        return f"{self.pairs_a_sample} pairs a sample{of}"

    def labels(self, split: str, y: np.ndarray) -> np.ndarray:
        """Returns (n,) int32, of classes still."""
        return class_numbers(split, y)

    def outputs(self, sources: Sources, names: Sequence[str] | None) -> Outputs:
        seen = set(np.concatenate([source.y for source in sources.values()]).tolist())
        unknown = set(self.held_out_classes) - seen
        if unknown:
            raise DataError(
                f"task.held_out_classes must be classes of the data, 0 … {max(seen)}. Received: "
                f"{min(unknown)}."
            )
        return Outputs(1, ("same",))

    def strata(self, y: np.ndarray) -> np.ndarray:
        return y

    def prepared(self, sources: Sources, seed: int) -> Sources:
        """Makes the pairs.

        Raises:
            DataError: A split does not have two classes, or no class of two samples.
        """
        found: Sources = {}
        for split, source in sources.items():
            is_held_out = np.isin(source.y, self.held_out_classes)
            kept = is_held_out == (split == "test") if self.held_out_classes else ~is_held_out
            chosen = source.take(np.flatnonzero(kept))
            split_seed = _TEST_SEED if split == "test" else seed
            found[split] = _paired(split, chosen, self.pairs_a_sample, split_seed)
        return found

    def guessing_loss(self, outputs: int) -> float:
        return float(np.log(2.0))

    def targets(self, x: tf.Tensor, labels: tf.Tensor, outputs: int) -> tf.Tensor:
        import tensorflow as tf

        return tf.cast(labels, tf.float32)[:, tf.newaxis]

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
        """The rate of errors at a probability of one half."""
        import tensorflow as tf

        return tf.reduce_mean(tf.cast((outputs > 0) != (y > 0.5), tf.float32))

    def scores(
        self, labels: np.ndarray, outputs: np.ndarray, losses: np.ndarray
    ) -> dict[str, float]:
        from sklearn.metrics import roc_auc_score

        said = outputs[:, 0]
        return {
            "eer": equal_error_rate(labels, said),
            "auroc": float(roc_auc_score(labels, said)),
            "accuracy": float(np.mean((said > 0) == (labels > 0))),
        }

    def same(self, outputs: np.ndarray, others: np.ndarray) -> float | None:
        return float(np.mean((outputs > 0) == (others > 0)))

    def decoded(self, outputs: np.ndarray, names: Sequence[str]) -> list[Mapping[str, Any]]:
        probabilities = 1 / (1 + np.exp(-outputs[:, 0].astype(np.float64)))
        return [{"same": bool(p > 0.5), "probability": round(float(p), 4)} for p in probabilities]


def equal_error_rate(labels: np.ndarray, said: np.ndarray) -> float:
    """Where the rates of misses and of false alarms are equal, between the two nearest thresholds
    on the straight line.

    Args:
        labels: (n,) of 0 and 1, both of which are there.
        said: (n,), the higher the surer of 1.
    """
    from sklearn.metrics import roc_curve

    alarms, hits, _ = roc_curve(labels, said)
    ahead = alarms - (1 - hits)  # from -1 to 1, rising
    after = int(np.argmax(ahead >= 0))
    share = -ahead[after - 1] / (ahead[after] - ahead[after - 1])
    return float(alarms[after - 1] + share * (alarms[after] - alarms[after - 1]))


def _paired(split: str, source: Source, pairs_a_sample: int, seed: int) -> Source:
    classes, sizes = np.unique(source.y, return_counts=True)
    if len(classes) < 2 or sizes.max() < 2:
        raise DataError(
            "task=verification makes pairs of two classes and of two samples of one class. "
            f"Received: {len(source)} samples of {len(classes)} classes in the {split} split."
        )
    first, second, same = pairs(source.y, pairs_a_sample * len(source), seed)
    return source.groups(np.stack([first, second], axis=1), same)


def pairs(y: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws pairs, every second one of the same class.

    Args:
        y: (n,) of two classes at least, one of which has two samples at least.

    Returns:
        Indices of the first and of the second samples, which are never the same, and int32 1 where
        their class is; (count,) each.
    """
    random = np.random.default_rng(seed)
    order = np.argsort(y, kind="stable")
    _, starts, members, sizes = np.unique(
        y[order], return_index=True, return_inverse=True, return_counts=True
    )
    start, size = starts[members], sizes[members]  # of the class of each place in the order
    same = (np.arange(count) % 2).astype(np.int32)
    first = np.where(
        same,
        random.choice(np.flatnonzero(size > 1), count),
        random.integers(0, len(y), count),
    )
    start, size = start[first], size[first]
    further = random.random(count)
    within = start + (first - start + 1 + (further * (size - 1)).astype(int)) % np.maximum(size, 1)
    outside = (start + size + (further * (len(y) - size)).astype(int)) % len(y)
    return order[first], order[np.where(same, within, outside)], same
