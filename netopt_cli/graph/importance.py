"""How much each unit of a group of channels matters: what structured pruning goes by.

An importance takes a group and gives a score for each of its units; surgery only removes. Those
that need data get it when they are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import keras
import numpy as np

from netopt_cli.graph.channels import ChannelGraph, Group, values_of, weights_by_path
from netopt_cli.graph.gradients import Batches, loss_gradients
from netopt_cli.tasks import Task

Criterion = Literal["l1", "l2", "bn_scale", "taylor", "geometric_median", "random"]

Importance = Callable[[Group], np.ndarray | None]
"""Group -> scores (size,) float, higher matters more; None when the group cannot be scored."""


def importance_of(
    criterion: Criterion,
    model: keras.Model,
    graph: ChannelGraph,
    batches: Batches,
    seed: int,
    *,
    task: Task | None = None,
) -> Importance:
    """Returns the importance that a criterion stands for.

    Args:
        batches: Of normalized training samples; read by `taylor` alone.
        seed: Of `random`.
        task: Whose loss `taylor` is about.
    """
    values = values_of(model)
    if criterion == "l1":
        return lambda group: np.abs(group.rows(values)).sum(axis=1)
    if criterion == "l2":
        return lambda group: np.sqrt(np.square(group.rows(values)).sum(axis=1))
    if criterion == "bn_scale":
        scales = {path for path, variable in weights_by_path(model).items() if _is_scale(variable)}
        return lambda group: _batch_norm_scale(group, values, scales)
    if criterion == "geometric_median":
        return lambda group: _distances(group.rows(values, roles=("produces",)))
    if criterion == "taylor":
        assert task is not None, "taylor is about the loss of a task"
        return _taylor(task, model, graph, values, batches)
    random = np.random.default_rng(seed)
    return lambda group: random.random(group.size)


def _is_scale(variable: keras.Variable) -> bool:
    return variable.name == "gamma" and len(variable.shape) == 1


def _batch_norm_scale(
    group: Group, values: Mapping[str, np.ndarray], scales: set[str]
) -> np.ndarray | None:
    """Sum of the |gamma| of a unit (Liu et al., network slimming, 2017)."""
    parts = [np.abs(values[m.path])[m.indices].sum(1) for m in group.members if m.path in scales]
    return np.sum(parts, axis=0) if parts else None


def _distances(rows: np.ndarray) -> np.ndarray:
    """Sum of the distances of each row to all others (He et al., FPGM, 2019).

    A unit near the geometric median can be replaced by the others. (size, n) -> (size,).
    """
    squares = np.square(rows).sum(axis=1)
    squared = squares[:, None] + squares[None, :] - 2 * rows @ rows.T
    return np.sqrt(np.maximum(squared, 0)).sum(axis=1)


def _taylor(
    task: Task,
    model: keras.Model,
    graph: ChannelGraph,
    values: Mapping[str, np.ndarray],
    batches: Batches,
) -> Importance:
    """Mean over the batches of (sum of w * g over what a unit computes with)^2.

    The first-order estimate of the squared change of the loss when the unit is set to zero
    (Molchanov et al. 2019, arXiv:1906.10771). Its units are those of the loss, so that scores of
    different groups compare as they are.
    """
    paths = sorted({m.path for g in graph.groups for m in g.members if m.role != "consumes"})
    variables = weights_by_path(model)
    trainable = [path for path in paths if variables[path].trainable]
    totals = {group.name: np.zeros(group.size) for group in graph.groups}
    for gradients in loss_gradients(task, model, [variables[path] for path in trainable])(batches):
        products = {path: np.zeros_like(values[path]) for path in paths}
        for path, gradient in zip(trainable, gradients, strict=True):
            products[path] = values[path] * gradient
        for group in graph.groups:
            rows = group.rows(products, roles=("produces", "follows"))
            totals[group.name] += np.square(rows.sum(axis=1))
    return lambda group: totals[group.name]
