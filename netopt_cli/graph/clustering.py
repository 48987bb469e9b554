"""Codebooks: finding few values that stand for many weights, and holding weights to them.

Deep Compression (Han et al., 2016, arXiv:1510.00149) shares weights by k-means and trains what is
shared. A value of a codebook is a bfloat16 in a float32: half of its bytes are zero in the file,
and the 0.4 % of rounding is small against the distance between values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict, Unpack

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.contracts import Keep, Modifier
from netopt_cli.graph.kernels import kernels

Initialization = Literal["linear", "density", "kmeans++"]

_MOST_ITERATIONS = 300


class HowToShare(TypedDict):
    """How the values of a codebook are found.

    Attributes:
        preserve_zeros: Zeros stay, and zero is one of the values; `share` makes no others.
        initialization: See `codebook`.
        seed: Of the drawing.
    """

    preserve_zeros: bool
    initialization: Initialization
    seed: int


def shareable(model: keras.Model, *, biases: bool) -> dict[str, keras.Variable]:
    """Returns path -> variable of the kernels and, if asked for, the biases."""
    found = kernels(model)
    for variable in model.trainable_variables if biases else ():
        if variable.name == "bias" and variable.path not in found:
            found[variable.path] = variable
    return found


def codebook(
    values: np.ndarray, clusters: int, *, initialization: Initialization, seed: int
) -> np.ndarray:
    """Finds at most `clusters` values that stand for all `values` by Lloyd's algorithm.

    On a line, the weights nearest to a centroid are a stretch of the sorted weights, and their mean
    a difference of two running sums. After one sort an iteration costs no more than a few binary
    searches, where a general k-means compares every weight with every centroid.

    Args:
        values: Any shape, at least one.
        initialization: `linear` spreads the first centroids evenly over the range, which serves the
            few large weights best (Han et al., §3.2); `density` evenly over the weights;
            `kmeans++` draws them far from one another (Arthur and Vassilvitskii, 2007).
        seed: Of the drawing.

    Returns:
        The values in rising order, float32 (at most clusters,): fewer when there are fewer
        distinct weights, or when no weight is nearest to a centroid.
    """
    ordered = np.sort(values, axis=None).astype(np.float64)
    distinct = np.unique(ordered)
    if len(distinct) <= clusters:
        return distinct.astype(np.float32)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centroids = _first(ordered, clusters, initialization, np.random.default_rng(seed))
    bounds = np.empty(0)
    for _ in range(_MOST_ITERATIONS):
        middles = (centroids[1:] + centroids[:-1]) / 2
        # A weight in the middle goes to the lower centroid, here as in `share`.
        last, bounds = bounds, np.searchsorted(ordered, middles, side="right")
        bounds = np.concatenate([[0], bounds, [len(ordered)]])
        if np.array_equal(last, bounds):
            break
        counts = np.diff(bounds)
        filled = counts > 0
        centroids[filled] = (np.diff(sums[bounds]) / np.maximum(counts, 1))[filled]
    # The difference of two sums may lose what tells a tiny weight from zero.
    found = np.clip(centroids[np.diff(bounds) > 0], ordered[0], ordered[-1])
    return np.unique(found.astype(np.float32))


def nearest(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the index of the value that is nearest to each weight; values in any order."""
    order = np.argsort(values)
    ordered = values[order]
    return order[np.searchsorted((ordered[1:] + ordered[:-1]) / 2, weights)]


def means(weights: np.ndarray, indices: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the values, each as the mean of the weights that have its index, if there are some;
    zero stays zero."""
    members = np.bincount(indices, minlength=len(values))
    sums = np.bincount(indices, weights, minlength=len(values))
    moved = np.where(members > 0, sums / np.maximum(members, 1), values)
    return np.where(values == 0, 0.0, moved).astype(np.float32)


def _first(
    ordered: np.ndarray, clusters: int, initialization: Initialization, random: np.random.Generator
) -> np.ndarray:
    if initialization == "linear":
        return np.linspace(ordered[0], ordered[-1], clusters)
    if initialization == "density":
        return np.quantile(ordered, (np.arange(clusters) + 0.5) / clusters)
    centroids = [random.choice(ordered)]
    distances = np.square(ordered - centroids[0])
    for _ in range(clusters - 1):
        drawn = np.searchsorted(np.cumsum(distances), random.random() * distances.sum())
        centroids.append(ordered[min(drawn, len(ordered) - 1)])
        distances = np.minimum(distances, np.square(ordered - centroids[-1]))
    return np.sort(centroids)


def first_values(
    weights: Sequence[np.ndarray], clusters: int, **how: Unpack[HowToShare]
) -> np.ndarray | None:
    """The values of one codebook for all of `weights`, without the zero that is preserved; None
    when there is nothing else."""
    joined = np.concatenate([weight.ravel() for weight in weights])
    nonzero = joined[joined != 0] if how["preserve_zeros"] else joined
    if not len(nonzero):
        return None
    count = clusters - (how["preserve_zeros"] and len(nonzero) < len(joined))
    return codebook(nonzero, count, initialization=how["initialization"], seed=how["seed"])


def share(variables: Sequence[keras.Variable], clusters: int, **how: Unpack[HowToShare]) -> None:
    """Replaces every weight of `variables` by the nearest value of one codebook for all of them.

    Args:
        clusters: Most distinct values in the end.
    """
    weights = [variable.numpy() for variable in variables]
    values = first_values(weights, clusters, **how)
    if values is None:
        return
    rounded = values.astype(tf.bfloat16.as_numpy_dtype).astype(np.float32)
    for variable, weight in zip(variables, weights, strict=True):
        shared = rounded[nearest(weight, values)]
        variable.assign(np.where(weight == 0, weight, shared) if how["preserve_zeros"] else shared)


def keep_codebook(groups: Sequence[Sequence[str]]) -> Keep:
    """Returns what keeps the weights of each group that are equal now equal, and zeros zero.

    After every update each weight becomes the mean of those it is equal to: the gradient step of a
    shared value (Han et al., §3.3), whatever the optimizer. The mean is held unrounded between the
    steps, so that small updates add up. What another constraint sets to zero stays zero.

    Args:
        groups: Paths of `shareable` weights with a common codebook. A weight that a later rewrite
            has renamed or removed is no longer held.
    """

    def modifier(model: keras.Model) -> Modifier:
        found = shareable(model, biases=True)
        held = [
            _as_they_are([found[path] for path in group if path in found])
            for group in groups
            if any(path in found for path in group)
        ]

        def constrain() -> None:
            for shared in held:
                shared.constrain()

        return Modifier("keep codebook", constrain=constrain)

    return modifier


def _as_they_are(variables: Sequence[keras.Variable]) -> SharedValues:
    weights = [variable.numpy() for variable in variables]
    values = np.unique(np.concatenate([weight.ravel() for weight in weights]))
    return SharedValues(variables, values, [np.searchsorted(values, w) for w in weights])


class SharedValues:
    """Variables with one codebook, and which of its values each weight has.

    Attributes:
        values: The codebook, float32; a zero in it stays zero.
        indices: Of the value of each weight, int32; -1 where a weight is free.
    """

    def __init__(
        self,
        variables: Sequence[keras.Variable],
        values: np.ndarray,
        indices: Sequence[np.ndarray],
    ) -> None:
        self.values = tf.Variable(values, trainable=False)
        self.indices = [tf.Variable(index.astype(np.int32), trainable=False) for index in indices]
        self._variables = variables

    def constrain(self) -> None:
        """Moves each value by the mean of what its weights have moved, and the weights to it. What
        another constraint has set to zero stays zero."""
        clusters = self.values.shape[0]
        rounded = as_bfloat16(self.values)
        moves, members = [], []
        for variable, index in zip(self._variables, self.indices, strict=True):
            value = tf.gather(rounded, tf.maximum(index, 0))
            member = tf.cast((index >= 0) & (variable != 0) & (value != 0), value.dtype)
            moves.append(tf.math.unsorted_segment_sum(member * (variable - value), index, clusters))
            members.append(tf.math.unsorted_segment_sum(member, index, clusters))
        self.values.assign_add(tf.math.divide_no_nan(tf.add_n(moves), tf.add_n(members)))
        rounded = as_bfloat16(self.values)
        for variable, index in zip(self._variables, self.indices, strict=True):
            value = tf.gather(rounded, tf.maximum(index, 0))
            variable.assign(tf.where((index < 0) | (variable == 0), variable, value))


def as_bfloat16(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(values, tf.bfloat16), tf.float32)


def distinct_values(weights: Mapping[str, keras.Variable]) -> dict[str, int]:
    """Returns path -> number of distinct values."""
    return {path: len(np.unique(variable.numpy())) for path, variable in weights.items()}
