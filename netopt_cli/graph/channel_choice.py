"""Which channels to remove: scores and a budget in, indices for `surgery.remove` out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np

from netopt_cli.graph.calls import calls_by_layer, macs
from netopt_cli.graph.channels import ChannelGraph, Group, weights_by_path
from netopt_cli.graph.rebuild import layers

Quantity = Literal["channels", "macs", "params"]
Scope = Literal["global", "layerwise"]

_BISECTIONS = 24


@dataclass(frozen=True)
class Bounds:
    """How far a group may shrink.

    Attributes:
        min_channels: Units that stay at least.
        max_ratio: Largest fraction of a group's units that is removed.
        round_to: The number of units that stay is a multiple of it, where the group is as large.
    """

    min_channels: int = 1
    max_ratio: float = 1.0
    round_to: int = 1

    def kept(self, size: int, wanted: float) -> int:
        """Returns the number of units of `size` that stay when `wanted` should."""
        floor = max(self.min_channels, math.ceil(size * (1.0 - self.max_ratio) - 1e-9), 1)
        kept = max(round(wanted), floor)
        if size > self.round_to:
            kept = max(round(kept / self.round_to), math.ceil(floor / self.round_to), 1)
            kept *= self.round_to
        return min(kept, size)


@dataclass(frozen=True)
class Choice:
    """What is removed.

    Attributes:
        removed: Name of a group -> the indices of its units that go, the least important ones.
        at_floor: Groups that the budget would have shrunk further than their bounds allow.
        reached: The fraction of the quantity that goes; less than asked for when every group is at
            its floor.
    """

    removed: dict[str, np.ndarray]
    at_floor: tuple[str, ...]
    reached: float


class Costs:
    """Parameters and MACs of a model as functions of how many units of each group are gone.

    Exact for dense layers and convolutions; products of attention do not count.
    """

    def __init__(self, model: keras.Model, graph: ChannelGraph, groups: Sequence[Group]) -> None:
        variables = weights_by_path(model)
        self._paths = list(variables)
        self._groups = {group.name: index for index, group in enumerate(groups)}
        index = {path: number for number, path in enumerate(self._paths)}
        rank = max((len(v.shape) for v in variables.values()), default=1)
        self._sizes = np.ones((len(variables), rank))
        for number, variable in enumerate(variables.values()):
            self._sizes[number, : len(variable.shape)] = variable.shape
        # How many indices of each axis one unit of each group has: (groups, weights, axes).
        self._parts = np.zeros((len(groups), *self._sizes.shape))
        for number, group in enumerate(groups):
            for member in group.members:
                self._parts[number, index[member.path], member.axis] += member.indices.shape[1]
        self._uses = np.zeros(len(variables))
        by_id = {id(v): number for number, v in enumerate(variables.values())}
        all_calls = calls_by_layer(model)
        for layer in {id(one): one for one in layers(model)}.values():
            kernels = [w for w in getattr(layer, "weights", ()) if len(w.shape) >= 2]
            size = sum(math.prod(w.shape) for w in kernels)
            for weight in kernels:
                self._uses[by_id[id(weight)]] = macs(layer, all_calls[id(layer)]) / size

    def of(self, quantity: Quantity, gone: Mapping[str, int]) -> float:
        """Returns what is left of `quantity` when so many units of each group are gone."""
        counts = np.zeros(len(self._groups))
        for name, count in gone.items():
            counts[self._groups[name]] = count
        if quantity == "channels":
            return -float(counts.sum())
        # (weights,) elements left
        left = (self._sizes - np.tensordot(counts, self._parts, 1)).prod(axis=1)
        return float(left.sum() if quantity == "params" else left @ self._uses)

    def saved(self, quantity: Quantity, group: Group) -> float:
        """Returns what goes with the first unit of a group."""
        return max(self.of(quantity, {}) - self.of(quantity, {group.name: 1}), 1e-9)


def choose(
    model: keras.Model,
    graph: ChannelGraph,
    scores: Mapping[str, np.ndarray],
    *,
    ratio: float,
    of: Quantity,
    scope: Scope,
    bounds: Bounds,
    per_cost: bool = False,
) -> Choice:
    """Chooses the least important units, as few as bring `of` down by `ratio`.

    Args:
        scores: Group -> (size,) importance; groups that are not in it stay whole. With
            `scope=global` they must compare between groups.
        ratio: Fraction to remove: of the units of these groups, or of all the model's MACs or
            parameters.
        per_cost: Units compete by their importance for each MAC or parameter that goes with them,
            the greedy rule of the knapsack problem: for scores that are a loss themselves.
    """
    groups = [group for group in graph.groups if group.name in scores]
    costs = Costs(model, graph, groups)
    units = sum(group.size for group in groups)
    if per_cost and of != "channels":
        scores = {g.name: scores[g.name] / costs.saved(of, g) for g in groups}
    whole = units if of == "channels" else costs.of(of, {})
    everything = np.concatenate([scores[g.name] for g in groups]) if groups else np.zeros(0)
    ranked = np.sort(everything)

    def kept(share: float) -> tuple[dict[str, int], list[str]]:
        """How many units of each group stay when `share` of all would go, without bounds."""
        wanted = {group.name: group.size * (1.0 - share) for group in groups}
        if scope == "global":
            drop = round(share * units)
            threshold = ranked[drop] if drop < units else np.inf
            wanted = {g.name: float(np.sum(scores[g.name] >= threshold)) for g in groups}
        found = {g.name: bounds.kept(g.size, wanted[g.name]) for g in groups}
        floored = [
            g.name
            for g in groups
            if found[g.name] > max(wanted[g.name], 1) + bounds.round_to / 2 or wanted[g.name] < 1
        ]
        return found, floored

    def removed_share(found: Mapping[str, int]) -> float:
        gone = {g.name: g.size - found[g.name] for g in groups}
        if of == "channels":
            return sum(gone.values()) / max(units, 1)
        return 1.0 - costs.of(of, gone) / whole

    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if removed_share(kept(middle)[0]) < ratio - 1e-9:
            low = middle
        else:
            high = middle
    found, floored = kept(high)
    return Choice(
        removed={
            g.name: np.argsort(scores[g.name], kind="stable")[: g.size - found[g.name]]
            for g in groups
            if found[g.name] < g.size
        },
        at_floor=tuple(floored),
        reached=removed_share(found),
    )
