"""How much each single weight matters: the scores that unstructured pruning goes by.

A criterion is bound to the weights once and returns an `Importance`, which scores them as they are
whenever it is called. The higher, the more important; only the order counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import keras
import numpy as np

from netopt_cli.graph.gradients import Batches, loss_gradients
from netopt_cli.tasks import Task

Scores = list[np.ndarray]
"""An array for each weight, of its shape."""

Importance = Callable[[], Scores]


def magnitude(weights: Sequence[keras.Variable]) -> Importance:
    """|w| (Han et al., 2015)."""
    return lambda: [np.abs(weight.numpy()) for weight in weights]


def lamp(weights: Sequence[keras.Variable]) -> Importance:
    """w² beside the sum of the squares that are not smaller in its layer (Lee et al., 2021).

    Within a layer the order is that of the magnitude. Across layers it spreads a global sparsity so
    that the output changes little, and no layer collapses: each one's largest weight scores 1.
    """

    def of_layer(weight: keras.Variable) -> np.ndarray:
        squares = np.square(weight.numpy(), dtype=np.float64).ravel()
        order = np.argsort(-squares, kind="stable")
        sums = np.maximum(np.cumsum(squares[order]), np.finfo(np.float64).tiny)
        scores = np.empty_like(squares)
        scores[order] = squares[order] / sums
        return scores.reshape(tuple(weight.shape))

    return lambda: [of_layer(weight) for weight in weights]


def random(weights: Sequence[keras.Variable], seed: int) -> Importance:
    """Uniform noise, the same at every call: the control that every criterion must beat."""
    generator = np.random.default_rng(seed)
    scores = [generator.random(tuple(weight.shape)) for weight in weights]
    return lambda: scores


def snip(
    task: Task, model: keras.Model, weights: Sequence[keras.Variable], batches: Batches
) -> Importance:
    """|w · g| with the gradient g of the loss over all batches (Lee et al., "SNIP", 2019)."""
    gradients = loss_gradients(task, model, weights)

    def scores() -> Scores:
        total = _sum(gradients(batches), weights)
        return [np.abs(w.numpy() * g) for w, g in zip(weights, total, strict=True)]

    return scores


def taylor(
    task: Task, model: keras.Model, weights: Sequence[keras.Variable], batches: Batches
) -> Importance:
    """Sum over the batches of |w · g|, the first-order change of the loss without the weight.

    In a trained network the gradients of all batches cancel; those of each alone do not
    (Molchanov et al., 2017 and 2019).
    """
    gradients = loss_gradients(task, model, weights)

    def scores() -> Scores:
        total = _sum(([np.abs(g) for g in found] for found in gradients(batches)), weights)
        return [np.abs(w.numpy()) * g for w, g in zip(weights, total, strict=True)]

    return scores


def _sum(found: Iterable[Scores], weights: Sequence[keras.Variable]) -> Scores:
    total = [np.zeros(tuple(weight.shape), np.float32) for weight in weights]
    for arrays in found:
        for index, array in enumerate(arrays):
            total[index] += array
    return total
