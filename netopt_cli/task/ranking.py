"""The items that suit a user, best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from netopt_cli.errors import DataError
from netopt_cli.ranking_labels import NOTHING, seen_in, wanted_in
from netopt_cli.tasks import Outputs, Sources, Task

if TYPE_CHECKING:
    import tensorflow as tf

_TIES = 1447
"""Seed of the order in which items of one score are ranked: by chance, and always the same. A file
of few bits has many such, and a network that says nothing is to be no better than chance."""


@dataclass(frozen=True)
class Ranking(Task):
    """A score for every item; the items to find are to have the highest ones.

    Labels are those of `ranking_labels`. Items that were seen before are neither ranked nor part of
    the loss.

    Attributes:
        loss: `multinomial`, softmax cross-entropy, the mean over the items to find (Liang et al.,
            2018, arXiv:1802.05814); `bpr`, -ln σ(score of one to find - score of another one)
            (Rendle et al., 2009, arXiv:1205.2618), over `negatives` pairs a user; `binary`, sigmoid
            cross-entropy of the items to find and `negatives` times as many others (He et al.,
            2017, arXiv:1708.05031).
        negatives: See `loss`.
        measure: What counts: `ndcg` with gains of 1 (Järvelin and Kekäläinen, 2002), `hit_rate`,
            `recall` or `mrr`, of the first `k`; the others stand beside it.
        k: Length of the list.
        candidates: `full`: every item that the user has not seen is ranked; `sampled`: the items to
            find among `sampled_negatives` others, drawn once. Figures of `sampled` are much higher,
            and may order networks otherwise (Krichene and Rendle, 2020).
        sampled_negatives: See `candidates`.
        sampling_seed: Of these others; not that of the run, whose figures would not compare.
        history: First column and end of what the user has seen in a sample, 2 + item, 0 where there
            is nothing; found out by the loader.
    """

    name: ClassVar[str] = "ranking"

    loss: Literal["multinomial", "bpr", "binary"] = "multinomial"
    negatives: Annotated[int, Field(ge=1)] = 4
    measure: Literal["ndcg", "hit_rate", "recall", "mrr"] = "ndcg"
    k: Annotated[int, Field(ge=1)] = 10
    candidates: Literal["full", "sampled"] = "full"
    sampled_negatives: Annotated[int, Field(ge=1)] = 100
    sampling_seed: int = 0
    history: tuple[int, int] = (0, 0)

    @property
    def metric(self) -> str:
        return f"{self.measure}_at_{self.k}"

    @property
    def protocol(self) -> str:
        if self.candidates == "full":
            return "full ranking"
        return f"sampled {self.sampled_negatives} (seed {self.sampling_seed})"

    def labels(self, split: str, y: np.ndarray) -> np.ndarray:
        """Returns (n, longest) int32."""
        if y.dtype != np.int32 or y.ndim != 2 or not (y >= 0).any(axis=-1).all():
            raise DataError(
                f"The {split} labels of task=ranking must be rows of the numbers of items, one of "
                f"them or more to find in each. Received: {y.dtype} of shape {y.shape}. Use "
                "data=ratings"
            )
        return y

    def outputs(self, sources: Sources, names: Sequence[str] | None) -> Outputs:
        most = 1 + max(int(max(s.y.max(), (-2 - s.y).max())) for s in sources.values())
        count = most if names is None else len(names)
        if most > count or count < 2:
            raise DataError(
                f"task=ranking needs 2 items or more, and a name for each. Received: {most} items, "
                f"{count} names."
            )
        return Outputs(count, tuple(names or map(str, range(count))))

    def guessing_loss(self, outputs: int) -> float:
        if self.loss == "multinomial":
            return math.log(outputs)
        return math.log(2.0) * (1 if self.loss == "bpr" else 1 + self.negatives)

    def targets(self, x: tf.Tensor, labels: tf.Tensor, outputs: int) -> tf.Tensor:
        """(batch, items): 1 of an item to find, -1 of one that is left out, 0 of any other."""
        import tensorflow as tf

        is_wanted, is_seen = labels >= 0, labels < NOTHING
        item = tf.where(is_wanted, labels, tf.where(is_seen, -2 - labels, 0))
        value = tf.cast(is_wanted, tf.int32) - tf.cast(is_seen, tf.int32)
        row = tf.broadcast_to(tf.range(tf.shape(labels)[0])[:, tf.newaxis], tf.shape(labels))
        shape = (tf.shape(labels)[0], outputs)
        return tf.cast(tf.scatter_nd(tf.stack([row, item], -1), value, shape), tf.float32)

    def losses(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        wanted = tf.cast(y > 0, outputs.dtype)
        wanted_count = tf.maximum(tf.reduce_sum(wanted, axis=-1), 1)
        if self.loss == "multinomial":
            ranked = tf.where(y < 0, outputs.dtype.min / 2, outputs)
            log_shares = tf.nn.log_softmax(ranked)
            return -tf.reduce_sum(tf.where(y > 0, log_shares, 0), axis=-1) / wanted_count
        seed = _seed_of(outputs)
        if self.loss == "bpr":
            better = _drawn(y > 0, self.negatives, seed)
            worse = _drawn(tf.equal(y, 0), self.negatives, seed + 1)
            margins = tf.gather(outputs, better, batch_dims=1) - tf.gather(
                outputs, worse, batch_dims=1
            )
            return tf.reduce_mean(tf.nn.softplus(-margins), axis=-1)
        others = tf.cast(tf.equal(y, 0), outputs.dtype)
        share = self.negatives * wanted_count / tf.maximum(tf.reduce_sum(others, axis=-1), 1)
        uniform = tf.random.stateless_uniform(tf.shape(y), seed, dtype=outputs.dtype)
        others *= tf.cast(uniform < share[:, tf.newaxis], outputs.dtype)
        each = tf.nn.sigmoid_cross_entropy_with_logits(wanted, outputs)
        return tf.reduce_sum(each * (wanted + others), axis=-1) / wanted_count

    def imitation(self, outputs: tf.Tensor, wanted: tf.Tensor, temperature: float) -> tf.Tensor:
        """T² times the divergence of the softened distributions over the items."""
        import tensorflow as tf

        log_wanted = tf.nn.log_softmax(wanted / temperature)
        log_outputs = tf.nn.log_softmax(outputs / temperature)
        differences = tf.exp(log_wanted) * (log_wanted - log_outputs)
        return temperature**2 * tf.reduce_sum(differences, axis=-1)

    def batch_score(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Of how many users the first item is one to find."""
        import tensorflow as tf

        best = tf.argmax(outputs, axis=-1)
        return tf.reduce_mean(tf.cast(tf.gather(y, best, batch_dims=1) > 0, tf.float32))

    def scores(
        self, labels: np.ndarray, outputs: np.ndarray, losses: np.ndarray
    ) -> dict[str, float]:
        k = min(self.k, outputs.shape[1])
        discounts = 1 / np.log2(np.arange(2, k + 2))
        sums = dict.fromkeys(("ndcg", "hit_rate", "recall", "mrr"), 0.0)
        tie_order = np.random.default_rng(_TIES).permutation(outputs.shape[1])
        for number, (row, scores) in enumerate(zip(labels, outputs, strict=True)):
            wanted = wanted_in(row)
            ranked = np.ones(len(scores), bool)
            ranked[seen_in(row)] = False
            if self.candidates == "sampled":
                others = ranked.copy()
                others[wanted] = False
                random = np.random.default_rng([self.sampling_seed, number])
                drawn = random.permutation(np.flatnonzero(others))[: self.sampled_negatives]
                ranked[:] = False
                ranked[wanted] = ranked[drawn] = True
            first = _first(np.where(ranked, scores, -np.inf), k, tie_order)
            hits = np.isin(first, wanted) & ranked[first]
            ideal = discounts[: min(k, len(wanted))].sum()
            sums["ndcg"] += float((hits * discounts).sum() / ideal)
            sums["hit_rate"] += float(hits.any())
            sums["recall"] += float(hits.sum() / len(wanted))
            sums["mrr"] += float(hits.any() / (1 + hits.argmax()))
        order = sorted(sums, key=lambda measure: measure != self.measure)
        return {f"{measure}_at_{self.k}": sums[measure] / len(labels) for measure in order}

    def same(self, outputs: np.ndarray, others: np.ndarray) -> float | None:
        """The mean share of the first `k` items that two sets of outputs have in common."""
        k = min(self.k, outputs.shape[1])
        tie_order = np.random.default_rng(_TIES).permutation(outputs.shape[1])
        common = [
            np.isin(_first(one, k, tie_order), _first(other, k, tie_order)).mean()
            for one, other in zip(outputs, others, strict=True)
        ]
        return float(np.mean(common))

    def told(
        self, x: np.ndarray, outputs: np.ndarray, names: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        """The first items that the user has not seen."""
        new = outputs.astype(np.float64)
        start, stop = self.history
        for row, tokens in zip(new, x[:, start:stop].astype(int), strict=True):
            row[tokens[tokens >= 2] - 2] = -np.inf
        return self.decoded(new, names)

    def decoded(self, outputs: np.ndarray, names: Sequence[str]) -> list[Mapping[str, Any]]:
        """The first `k` items of each sample, the best first, and their scores."""
        k = min(self.k, outputs.shape[1])
        tie_order = np.random.default_rng(_TIES).permutation(outputs.shape[1])
        firsts = (_first(row, k, tie_order) for row in outputs)
        ranked = [
            [item for item in first if row[item] > -np.inf]
            for first, row in zip(firsts, outputs, strict=True)
        ]
        return [
            {
                "items": [names[item] for item in items],
                "scores": [round(float(row[item]), 4) for item in items],
            }
            for items, row in zip(ranked, outputs, strict=True)
        ]


def _first(scores: np.ndarray, k: int, tie_order: np.ndarray) -> np.ndarray:
    """The `k` items of the highest scores, in order; `tie_order` (items,) ranks equal ones."""
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= least)
    return candidates[np.lexsort((tie_order[candidates], -scores[candidates]))][:k]


def _seed_of(outputs: tf.Tensor) -> tf.Tensor:
    """(2,) int32 made of the scores themselves, which are others after each step: draws without a
    state that a run which goes on would have to restore."""
    import tensorflow as tf

    total = tf.stack([tf.reduce_sum(outputs), tf.reduce_sum(tf.square(outputs))])
    return tf.bitcast(tf.stop_gradient(tf.cast(total, tf.float32)), tf.int32)


def _drawn(allowed: tf.Tensor, count: int, seed: tf.Tensor) -> tf.Tensor:
    """(batch, count): items drawn evenly from those that are allowed in each row."""
    import tensorflow as tf

    chances = tf.where(allowed, 0.0, tf.float32.min)
    return tf.random.stateless_categorical(chances, count, seed, dtype=tf.int32)


RANKING = Ranking()
"""What is learned of ratings."""
