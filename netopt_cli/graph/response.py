"""What each layer of a network answers to being cut alone, and spreading a budget by the answers.

A layer is cut in place, scored and restored: one layer and one level at a time. The rise of the
loss over the levels is its curve, and `spread` cuts first where a saving costs the least, so that
sensitive layers keep more (as Li et al., 2017, arXiv:1608.08710, do by hand). It takes damages to
add up over the layers, which is rough: train afterwards.

A technique says what is cut, and its level how far:

    prune       a kernel, by path     fraction of its weights that are zero, the smallest first
    structured  a group of channels   fraction of them that are zero, by `importance` l1
    rank        a kernel, by path     fraction of the full rank that is left, by truncated SVD
    bits        a kernel, by path     bits of each weight, see `graph.quantizers`
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.errors import InputError
from netopt_cli.graph.channels import Group, read_channels, values_of
from netopt_cli.graph.gradients import Batches, task_loss
from netopt_cli.graph.importance import importance_of
from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.masks import largest
from netopt_cli.graph.quantizers import channel_axes, quantized_weights
from netopt_cli.graph.ranks import unsupported
from netopt_cli.graph.rebuild import layers
from netopt_cli.tasks import Task

Technique = Literal["prune", "structured", "rank", "bits"]

LEVELS: Mapping[Technique, tuple[float, ...]] = {
    "prune": (0.5, 0.75, 0.9, 0.95),
    "structured": (0.25, 0.5, 0.75),
    "rank": (0.75, 0.5, 0.25, 0.125),
    "bits": (8, 6, 4, 3, 2),
}
"""The levels that a look at all layers takes, mildest first."""

_UNCUT: Mapping[Technique, float] = {"prune": 0.0, "structured": 0.0, "rank": 1.0, "bits": 32}
_ROUNDING = 1e-9
_PARTS = 8  # Levels that `spread` weighs for each one that was scanned.

Score = TypeVar("Score")
_Cut = Callable[[float], AbstractContextManager[None]]


@dataclass(frozen=True)
class Curve:
    """What a layer answers to being cut ever deeper.

    Attributes:
        levels: (n,), from the layer as it is to the deepest cut.
        damages: (n,), the rise of the loss: 0 at first, never falling.
    """

    levels: tuple[float, ...]
    damages: tuple[float, ...]


class TaskLoss:
    """The task loss of one model on some samples, with the weights that it has when called.

    For what decides about a network take training samples: those of validation choose the epoch,
    and would judge what they have chosen themselves.
    """

    def __init__(self, task: Task, model: keras.Model, batches: Batches) -> None:
        """Compiles for `model` once and keeps the samples."""
        self._batches = [(tf.constant(x), tf.constant(y)) for x, y in batches]
        self._loss = tf.function(
            lambda x, y: task_loss(task, model, x, y), autograph=False, reduce_retracing=True
        )

    def __call__(self, model: keras.Model) -> float:
        """Returns the mean over the samples (nats); `model` is the one that it was made for."""
        sizes = [len(y) for _, y in self._batches]
        losses = [float(self._loss(x, y)) for x, y in self._batches]
        return float(np.average(losses, weights=sizes))


def layers_of(model: keras.Model, technique: Technique) -> list[str]:
    """Returns the names of what a technique can cut, in the model's order."""
    return [name for name, _ in _CUTS[technique](model)]


def answers(
    model: keras.Model,
    technique: Technique,
    levels: Sequence[float],
    score: Callable[[keras.Model], Score],
    only: Collection[str] | None = None,
) -> Iterator[tuple[str, float, Score]]:
    """Yields (layer, level, score) with that layer alone cut to that level, in the model's order.

    The model has its own weights whenever something is yielded.

    Args:
        score: Called with the cut model.
        only: Names of the layers to try; None for all that the technique can cut.
    """
    for name, cut in _CUTS[technique](model):
        if only is not None and name not in only:
            continue
        for level in levels:
            with cut(level):
                found = score(model)
            yield name, level, found


def scan(
    model: keras.Model,
    technique: Technique,
    levels: Sequence[float],
    loss: Callable[[keras.Model], float],
    only: Collection[str] | None = None,
) -> dict[str, Curve]:
    """Returns the curve of every layer; see `answers`.

    Args:
        loss: Of the model as it is then, on samples of its own: see `TaskLoss`.
    """
    before = loss(model)
    uncut = _UNCUT[technique]
    found: dict[str, dict[float, float]] = {}
    for name, level, after in answers(model, technique, levels, loss, only):
        found.setdefault(name, {})[level] = after - before
    return {name: _curve(uncut, damages) for name, damages in found.items()}


def _curve(uncut: float, damages: Mapping[float, float]) -> Curve:
    """The curve through what was measured; it ends before a loss that is no number."""
    levels, rising = [uncut], [0.0]
    for level in sorted(damages, key=lambda level: abs(level - uncut)):
        if not math.isfinite(damages[level]):
            break
        levels.append(level)
        rising.append(max(rising[-1], damages[level]))
    return Curve(tuple(levels), tuple(rising))


def spread(
    curves: Mapping[str, Curve],
    costs: Mapping[str, Callable[[float], float]],
    budget: float,
    *,
    between: bool = True,
) -> dict[str, float]:
    """Returns the level of each layer with which the costs of all together are within a budget.

    Every layer goes down the lower convex hull of (cost, damage), on which a saving costs ever
    more. The steps of all layers are taken in the order of damage for each saved cost; steps of the
    same price are taken together, so that layers that are alike are cut alike.

    Args:
        curves: By layer.
        costs: By layer, level -> cost; it must not rise with deeper cuts.
        budget: In the unit of the costs.
        between: Whether levels between those of a curve may be taken, damages interpolated
            linearly; the costs then end at the budget, not below.

    Raises:
        InputError: The deepest cuts are not within the budget.
    """
    reached = {name: curve.levels[0] for name, curve in curves.items()}

    def spent(levels: Mapping[str, float]) -> float:
        return math.fsum(costs[name](level) for name, level in levels.items())

    if spent(reached) <= budget:
        return reached
    steps = [
        step for name, curve in curves.items() for step in _steps(name, curve, costs[name], between)
    ]
    steps.sort(key=lambda step: step.price)
    for _, alike in itertools.groupby(steps, key=lambda step: step.price):
        together = list(alike)
        for group in [together] if between else [[step] for step in together]:
            taken = reached | {step.layer: step.end for step in group}
            if spent(taken) <= budget:
                return _part_way(reached, group, lambda levels: spent(levels) <= budget, between)
            reached = taken
    raise InputError(
        f"The budget must be at least {spent(reached):g}, which the deepest cuts leave. "
        f"Received: {budget:g}"
    )


@dataclass(frozen=True)
class _Step:
    """From one level of a layer to a deeper one; `price` is damage for each saved cost."""

    layer: str
    start: float
    end: float
    price: float


def _steps(name: str, curve: Curve, cost: Callable[[float], float], between: bool) -> list[_Step]:
    """Returns the steps down the lower convex hull of (cost, damage), prices rising."""
    levels, damages = np.array(curve.levels), np.array(curve.damages)
    if between:
        at = np.linspace(0, len(levels) - 1, (len(levels) - 1) * _PARTS + 1)
        known = np.arange(len(levels))
        levels, damages = np.interp(at, known, levels), np.interp(at, known, damages)
    left = np.array([cost(float(level)) for level in levels])
    found: list[_Step] = []
    here = 0
    while True:
        cheaper = here + 1 + np.flatnonzero(left[here + 1 :] < left[here])
        if not len(cheaper):
            return found
        prices = (damages[cheaper] - damages[here]) / (left[here] - left[cheaper])
        best = int(np.argmin(prices))
        there, start, price = int(cheaper[best]), float(levels[here]), float(prices[best])
        if found and price <= found[-1].price * (1 + _ROUNDING):
            # The hull is straight here: one step, whose price rounding must not split.
            start, price = found[-1].start, found.pop().price
        found.append(_Step(name, start, float(levels[there]), price))
        here = there


def _part_way(
    reached: dict[str, float],
    group: Sequence[_Step],
    fits: Callable[[Mapping[str, float]], bool],
    between: bool,
) -> dict[str, float]:
    """The levels after the least part of some steps with which the budget holds."""

    def after(part: float) -> dict[str, float]:
        return reached | {s.layer: s.start + part * (s.end - s.start) for s in group}

    if not between:
        return after(1.0)
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(after(middle)) else (middle, high)
    return after(high)


def _prune_cuts(model: keras.Model) -> Iterator[tuple[str, _Cut]]:
    for path, kernel in kernels(model).items():
        whole = kernel.numpy()

        def pruned(sparsity: float, whole: np.ndarray = whole) -> np.ndarray:
            return whole * largest([np.abs(whole)], sparsity)[0]

        yield path, _replacing(kernel, pruned)


def _rank_cuts(model: keras.Model) -> Iterator[tuple[str, _Cut]]:
    """Kernels as matrices from what is summed to the channels that come out."""
    axes = channel_axes(model)
    factorable = {id(layer.kernel) for layer in layers(model) if unsupported(layer) is None}
    for path, kernel in kernels(model).items():
        if id(kernel) in factorable:
            yield path, _replacing(kernel, _truncated(kernel.numpy(), axes[path]))


def _truncated(kernel: np.ndarray, axes: Sequence[int]) -> Callable[[float], np.ndarray]:
    """Returns fraction of the full rank -> the nearest kernel of that rank (at least 1)."""
    ends = range(-len(axes), 0)
    moved = np.moveaxis(kernel, axes, ends)
    matrix = moved.reshape(math.prod(moved.shape[: -len(axes)]), -1)  # (summed, channels)
    decomposed = functools.cache(lambda: np.linalg.svd(matrix, full_matrices=False))

    def at(fraction: float) -> np.ndarray:
        left, values, right = decomposed()
        rank = max(1, round(fraction * len(values)))
        nearest = (left[:, :rank] * values[:rank]) @ right[:rank]
        return np.moveaxis(nearest.reshape(moved.shape), ends, axes)

    return at


def _bits_cuts(model: keras.Model) -> Iterator[tuple[str, _Cut]]:
    for path in kernels(model):

        def quantized(bits: float, path: str = path) -> AbstractContextManager[None]:
            return quantized_weights(model, {path: int(bits)})

        yield path, quantized


def _structured_cuts(model: keras.Model) -> Iterator[tuple[str, _Cut]]:
    """Zeroes the weights of channels, as `surgery.masked` does in a copy."""
    graph = read_channels(model)
    whole = values_of(model)
    norm_of = importance_of("l1", model, graph, iter(()), seed=0)
    for group in graph.groups:
        scores = norm_of(group)
        if scores is None:
            continue
        weakest = np.argsort(scores, kind="stable")

        @contextmanager
        def masked(
            ratio: float, group: Group = group, weakest: np.ndarray = weakest
        ) -> Iterator[None]:
            units = weakest[: min(group.size - 1, round(ratio * group.size))]
            zeroed: dict[str, np.ndarray] = {}
            for member in group.members:
                values = zeroed.setdefault(member.path, whole[member.path].copy())
                np.moveaxis(values, member.axis, 0)[member.indices[units].ravel()] = 0
            with ExitStack() as stack:
                for path, values in zeroed.items():
                    stack.enter_context(_replaced(graph.paths[path], values))
                yield

        yield group.name, masked


def _replacing(kernel: keras.Variable, at: Callable[[float], np.ndarray]) -> _Cut:
    return lambda level: _replaced(kernel, at(level))


@contextmanager
def _replaced(variable: keras.Variable, values: np.ndarray) -> Iterator[None]:
    """Within it a weight has other values."""
    before = variable.numpy()
    variable.assign(values)
    try:
        yield
    finally:
        variable.assign(before)


_CUTS: Mapping[Technique, Callable[[keras.Model], Iterator[tuple[str, _Cut]]]] = {
    "prune": _prune_cuts,
    "structured": _structured_cuts,
    "rank": _rank_cuts,
    "bits": _bits_cuts,
}
