"""Codebooks that weights move to a few at a time, while the others make up for it.

Deep Compression puts every weight on its value at once and can then train nothing but the values.
Incremental quantization (Zhou et al., "INQ", ICLR 2017, arXiv:1702.03044) puts a part of them
there, goes on training those that are free, and repeats. INQ begins with the largest weights and
has powers of two as values; here those come first that are nearest to a value, which does no worse
(docs/results.md), and the values follow the weights: by Lloyd's algorithm when weights are put on
them, by their gradient in between. No library has it for Keras 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import keras
import numpy as np

from netopt_cli.contracts import Modifier
from netopt_cli.graph.clustering import (
    HowToShare,
    SharedValues,
    as_bfloat16,
    first_values,
    means,
    nearest,
)
from netopt_cli.graph.masks import SoFar
from netopt_cli.graph.ramp import ramp

_UNTIL = 0.8
"""Part of the training at which all weights are on their values; these alone are trained on."""
_ITERATIONS = 10
"""Of Lloyd's algorithm each time: the values have not far to go."""


def incremental_codebooks(
    groups: Sequence[Sequence[keras.Variable]],
    clusters: int,
    **how: Unpack[HowToShare],
) -> Modifier:
    """Returns what trains the weights of each group towards at most `clusters` values.

    Weights that are nearest to a zero that is preserved become zero.
    """
    books = []
    for group in groups:
        values = first_values([variable.numpy() for variable in group], clusters, **how)
        if values is not None:
            books.append(_Book(group, values, how["preserve_zeros"]))

    def settle(so_far: SoFar) -> None:
        for book in books:
            book.settle(so_far(1.0))

    def constrain() -> None:
        for book in books:
            book.shared.constrain()

    return replace(ramp(_UNTIL, settle), name="incremental codebook", constrain=constrain)


class _Book:
    """One codebook, and the weights that go to its values."""

    def __init__(
        self, variables: Sequence[keras.Variable], values: np.ndarray, preserve_zeros: bool
    ) -> None:
        weights = [variable.numpy() for variable in variables]
        if preserve_zeros:
            values = np.concatenate([[0.0], values]).astype(np.float32)
        # Zeros have their value already, the first.
        self._is_chosen = [
            weight != 0 if preserve_zeros else np.ones(weight.shape, bool) for weight in weights
        ]
        self._variables = variables
        self.shared = SharedValues(
            variables, values, [np.where(chosen, -1, 0) for chosen in self._is_chosen]
        )

    def settle(self, part: float) -> None:
        """Puts more weights on the value that is nearest, so that `part` of all are on one."""
        weights, indices = (
            np.concatenate([a.numpy()[c] for a, c in zip(arrays, self._is_chosen, strict=True)])
            for arrays in (self._variables, self.shared.indices)
        )
        values = self.shared.values.numpy()
        for _ in range(_ITERATIONS):
            found = np.where(indices < 0, nearest(weights, values), indices)
            values = means(weights, found, values)
        found = nearest(weights, values)
        distances = np.where(indices < 0, np.abs(weights - values[found]), -np.inf)
        due = np.argsort(distances, kind="stable")[: round(part * len(weights))]
        indices[due] = np.where(indices[due] < 0, found[due], indices[due])
        self.shared.values.assign(values)
        rounded = as_bfloat16(self.shared.values).numpy()
        parts = np.split(indices, np.cumsum([chosen.sum() for chosen in self._is_chosen])[:-1])
        for variable, index, chosen, now in zip(
            self._variables, self.shared.indices, self._is_chosen, parts, strict=True
        ):
            every = index.numpy()
            every[chosen] = now
            index.assign(every)
            variable.assign(np.where(every < 0, variable.numpy(), rounded[every]))
