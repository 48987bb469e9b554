"""Codebooks that are found while the network is trained: a weight can change its cluster.

Deep Compression assigns each weight to a value once and trains the values alone. Here the weights
themselves are trained, the forward pass has the nearest value in the place of each, and the
gradient goes straight through to the weight, as in quantization-aware training (Jacob et al., 2018)
and in soft k-means of weights (Cho et al., "DKM", ICLR 2022). After each update a value becomes the
mean of its weights: one iteration of Lloyd's algorithm. No library has it for Keras 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.contracts import Modifier
from netopt_cli.graph.clustering import HowToShare, as_bfloat16, first_values


def moving_codebooks(
    groups: Sequence[Sequence[keras.Variable]],
    clusters: int,
    **how: Unpack[HowToShare],
) -> Modifier:
    """Returns what trains the weights of each group towards at most `clusters` values; what is
    validated, and kept in the end, are the values."""
    books = []
    for group in groups:
        weights = [variable.numpy() for variable in group]
        values = first_values(weights, clusters, **how)
        if values is not None:
            books.append(_Book(group, weights, values, how["preserve_zeros"]))
    pairs = tuple(pair for book in books for pair in book.pairs)

    def follow() -> None:
        for book in books:
            book.follow()

    def substitute(seed: tf.Tensor) -> list[tuple[keras.Variable, tf.Tensor]]:
        return [
            (weight, weight.value + tf.stop_gradient(shared.value - weight.value))
            for weight, shared in pairs
        ]

    follow()
    return Modifier("moving codebook", substitute=substitute, constrain=follow, averages=pairs)


class _Book:
    """One codebook, and the weights that go to its values.

    Attributes:
        pairs: Each weight, and the same on the values.
    """

    def __init__(
        self,
        variables: Sequence[keras.Variable],
        weights: Sequence[np.ndarray],
        values: np.ndarray,
        preserve_zeros: bool,
    ) -> None:
        self.pairs = [
            (variable, keras.Variable(weight, trainable=False, name=f"{variable.name}_shared"))
            for variable, weight in zip(variables, weights, strict=True)
        ]
        places = [_Nonzero(weight) if preserve_zeros else _All(weight) for weight in weights]
        self._parts = list(zip(self.pairs, places, strict=True))
        self._values = tf.Variable(values, trainable=False)

    def follow(self) -> None:
        """Moves the values to the mean of their weights, and what is shared to the values."""
        count = self._values.shape[0]
        middles = (self._values[1:] + self._values[:-1]) / 2
        present = [place.take(weight.value) for (weight, _), place in self._parts]
        indices = [tf.searchsorted(middles, weights) for weights in present]
        sums, members = (
            tf.add_n(
                [
                    tf.math.unsorted_segment_sum(x, i, count)
                    for x, i in zip(xs, indices, strict=True)
                ]
            )
            for xs in (present, [tf.ones_like(weights) for weights in present])
        )
        self._values.assign(
            tf.where(members > 0, tf.math.divide_no_nan(sums, members), self._values)
        )
        rounded = as_bfloat16(self._values)
        for ((_, shared), place), weights, index in zip(self._parts, present, indices, strict=True):
            shared.assign(place.put(tf.gather(rounded, index), weights))


class _All:
    """All weights of an array."""

    def __init__(self, weight: np.ndarray) -> None:
        self._shape = weight.shape

    def take(self, weight: tf.Tensor) -> tf.Tensor:
        """Returns them in a row."""
        return tf.reshape(weight, [-1])

    def put(self, shared: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Returns the array with `shared` in the place of the `weights` that were taken."""
        return tf.reshape(shared, self._shape)


class _Nonzero:
    """The weights that are not zero at the start; a sparse array has few to look at."""

    def __init__(self, weight: np.ndarray) -> None:
        self._shape = weight.shape
        self._positions = tf.constant(np.flatnonzero(weight)[:, None], tf.int32)

    def take(self, weight: tf.Tensor) -> tf.Tensor:
        return tf.gather_nd(tf.reshape(weight, [-1]), self._positions)

    def put(self, shared: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        # Those that another constraint has set to zero since are zero as well.
        shared = tf.where(weights == 0, tf.zeros_like(shared), shared)
        flat = tf.scatter_nd(self._positions, shared, [math.prod(self._shape)])
        return tf.reshape(flat, self._shape)
