"""Which weights stay: masks from scores, unstructured or N:M, and holding weights to them.

A mask is True where the weight stays. A `Pattern` makes masks of scores; separate from it is what
the scores come from (`saliency`, `gates`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

SoFar = Callable[[float], float]
"""Final sparsity -> the sparsity that is due now."""


def in_full(sparsity: float) -> float:
    return sparsity


class Pattern(Protocol):
    """Draws masks from scores."""

    def __call__(self, scores: Sequence[np.ndarray], so_far: SoFar) -> list[np.ndarray]:
        """Returns a mask for each array of scores; the lowest scores go."""
        ...

    def shuffled(
        self, masks: Sequence[np.ndarray], generator: np.random.Generator
    ) -> list[np.ndarray]:
        """Returns random masks with as many weights in each layer as `masks` have."""
        ...


@dataclass(frozen=True)
class Unstructured:
    """Any weight may go.

    Attributes:
        groups: Indices of the weights that compete with one another, and their joint sparsity.
    """

    groups: tuple[tuple[tuple[int, ...], float], ...]

    def __call__(self, scores: Sequence[np.ndarray], so_far: SoFar) -> list[np.ndarray]:
        masks = [np.ones(array.shape, bool) for array in scores]
        for indices, sparsity in self.groups:
            found = largest([scores[index] for index in indices], so_far(sparsity))
            for index, mask in zip(indices, found, strict=True):
                masks[index] = mask
        return masks

    def shuffled(
        self, masks: Sequence[np.ndarray], generator: np.random.Generator
    ) -> list[np.ndarray]:
        return [generator.permutation(mask.ravel()).reshape(mask.shape) for mask in masks]


@dataclass(frozen=True)
class NOfM:
    """At most `n` of `m` consecutive weights along the input axis of each kernel stay.

    2:4 is what sparse tensor cores run (Mishra et al., 2021); others: Zhou et al., 2021.

    Attributes:
        axes: The input axis of each kernel; its size is a multiple of `m`.
    """

    n: int
    m: int
    axes: tuple[int, ...]

    def __call__(self, scores: Sequence[np.ndarray], so_far: SoFar) -> list[np.ndarray]:
        keep = max(self.n, self.m - round(so_far(1 - self.n / self.m) * self.m))
        return [
            n_of_m(array, keep, self.m, axis) for array, axis in zip(scores, self.axes, strict=True)
        ]

    def shuffled(
        self, masks: Sequence[np.ndarray], generator: np.random.Generator
    ) -> list[np.ndarray]:
        return self([generator.random(mask.shape) for mask in masks], in_full)


def largest(scores: Sequence[np.ndarray], sparsity: float) -> list[np.ndarray]:
    """Returns masks without the round(sparsity * n) smallest of all n scores together.

    One weight of each array stays whatever its score, so that no layer is emptied.
    """
    flat = np.concatenate([array.ravel() for array in scores])
    drop = round(sparsity * flat.size)
    kept = np.ones(flat.size, bool)
    kept[np.argpartition(flat, drop - 1)[:drop] if drop else []] = False
    parts = np.split(kept, np.cumsum([array.size for array in scores])[:-1])
    for array, mask in zip(scores, parts, strict=True):
        if not mask.any():
            mask[np.argmax(array)] = True
    return [mask.reshape(array.shape) for array, mask in zip(scores, parts, strict=True)]


def n_of_m(scores: np.ndarray, n: int, m: int, axis: int) -> np.ndarray:
    """Returns a mask with the `n` largest of each `m` consecutive scores along `axis`."""
    last = np.moveaxis(scores, axis, -1)
    blocks = last.reshape(-1, m)
    order = np.argsort(-blocks, axis=-1, kind="stable")
    mask = np.zeros(blocks.shape, bool)
    np.put_along_axis(mask, order[:, :n], True, axis=-1)
    return np.moveaxis(mask.reshape(last.shape), -1, axis)


def input_axes(model: keras.Model, weights: Sequence[keras.Variable]) -> list[int | None]:
    """Returns the axis of each kernel that is summed over, hence the one N:M runs along.

    None where there is no such axis or it is not known: depthwise kernels sum over space alone,
    embeddings over nothing, and what a custom layer does is its own.
    """
    # Parents come before their sublayers, so that the innermost owner is the one that stays.
    layers = model._flatten_layers(include_self=False)
    owners = {id(weight): layer for layer in layers for weight in layer.weights}
    return [_input_axis(owners[id(weight)], weight) for weight in weights]


def _input_axis(layer: keras.Layer, weight: keras.Variable) -> int | None:
    name, rank = weight.name, len(weight.shape)
    if isinstance(layer, keras.layers.EinsumDense) and weight is layer._kernel:
        operands, output = layer.equation.replace(" ", "").split("->")
        summed = [axis for axis in operands.split(",")[1] if axis not in output]
        return operands.split(",")[1].index(summed[-1]) if summed else None
    if isinstance(layer, (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose,
                          keras.layers.Conv3DTranspose)):  # fmt: skip
        return rank - 1  # (*space, out, in)
    if isinstance(layer, (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)):
        return rank - 2  # (*space, in, out)
    if isinstance(layer, (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)):
        return rank - 2 if name == "pointwise_kernel" else None
    dense = (keras.layers.Dense, keras.layers.SimpleRNNCell, keras.layers.LSTMCell,
             keras.layers.GRUCell)  # fmt: skip
    return 0 if isinstance(layer, dense) and rank == 2 and "kernel" in name else None


class Masks:
    """The masks of some weights, in variables that a compiled training step can read."""

    def __init__(self, weights: Sequence[keras.Variable], *, keep_zeros: bool) -> None:
        """Starts with all the weights, or without those that are zero."""
        self._weights = weights
        self._first = [
            weight.numpy() != 0 if keep_zeros else np.ones(tuple(weight.shape), bool)
            for weight in weights
        ]
        self.variables = [
            tf.Variable(mask, dtype=weight.dtype, trainable=False)
            for mask, weight in zip(self._first, weights, strict=True)
        ]

    @property
    def values(self) -> list[np.ndarray]:
        return [variable.numpy() != 0 for variable in self.variables]

    def assign(self, masks: Sequence[np.ndarray]) -> None:
        for variable, mask in zip(self.variables, masks, strict=True):
            variable.assign(mask.astype(variable.dtype.as_numpy_dtype))

    def draw(
        self,
        pattern: Pattern,
        scores: Sequence[np.ndarray],
        so_far: SoFar,
        *,
        may_return: bool = False,
    ) -> None:
        """Draws the masks anew by the scores; the weights themselves do not change.

        Args:
            may_return: Lets weights come back that have gone since the start; otherwise those that
                have gone stay away.
        """
        present = self._first if may_return else self.values
        scores = [np.where(p, s, -np.inf) for p, s in zip(present, scores, strict=True)]
        drawn = pattern(scores, so_far)
        self.assign([mask & p for mask, p in zip(drawn, present, strict=True)])

    def apply(self) -> None:
        """Sets the weights that have gone to zero; usable in the graph."""
        for weight, mask in zip(self._weights, self.variables, strict=True):
            weight.assign(weight * mask)
