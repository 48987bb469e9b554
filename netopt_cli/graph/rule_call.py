"""What a rule sees of one call of a layer, and what it says about it.

A rule tells which indices of a layer's inputs, weights and outputs belong to the same unit. It is
called once for each call of the layer in the graph:

    def scale(call: Call) -> Labels:
        # One factor for each channel: it follows the channels of the input.
        call.weight(call.layer.factor, follows(call.x[-1]))
        return call.x

    def project(call: Call) -> Labels:
        # A matrix from the features of the input to `size` new ones.
        out = call.units(call.layer.size)
        call.weight(call.layer.matrix, consumes(call.x[-1]), produces(out))
        call.resize("size", out)  # the key of get_config() that counts them
        return call.x.with_axis(-1, out)

A rule that cannot handle the layer as it is configured raises `NoRule` with the reason, before it
says anything else: the layer is then left alone and its inputs are protected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import keras

from netopt_cli.graph.labels import Ids, Labels, Unions, is_free

Role = Literal["produces", "consumes", "follows"]
"""What an axis of a weight has to do with its units: it computes them, takes them in, or has values
for each of them besides (BatchNorm)."""

Kept = Callable[[Ids], Any]
"""Labels of an axis, (n,) -> which of its indices stay, bool (n,)."""


class NoRule(Exception):  # noqa: N818
    """A layer as it is configured has no rule; the message says why."""


class Rule(Protocol):
    def __call__(self, call: Call) -> Any:
        """Returns the labels of the outputs, in the structure of the outputs."""
        ...


@dataclass(frozen=True)
class WeightAxis:
    ids: Ids
    role: Role


def produces(ids: Ids) -> WeightAxis:
    return WeightAxis(ids, "produces")


def consumes(ids: Ids) -> WeightAxis:
    return WeightAxis(ids, "consumes")


def follows(ids: Ids) -> WeightAxis:
    return WeightAxis(ids, "follows")


@dataclass
class Notes:
    """What the rules have said about one model."""

    unions: Unions = field(default_factory=Unions)
    units: dict[tuple[int, str], Ids] = field(default_factory=dict)
    weights: dict[int, list[WeightAxis | None]] = field(default_factory=dict)
    sizes: dict[int, dict[tuple[str, ...], Ids | Sequence[Ids | None]]] = field(
        default_factory=dict
    )


Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Call:
    """One call of a layer or bare operation.

    Attributes:
        layer: What is called.
        args, kwargs: What with; `Labels` stand for tensors.
        shapes: Shapes of the outputs, None for unknown sizes.
        over_kept: Set it when the layer mixes values of different units without a weight for each
            (a mean over channels): its result is then that over the units kept.
        rewritten: (args, kwargs, kept) -> (args, kwargs), when the arguments must change with the
            units: set it.
    """

    layer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: list[tuple[int | None, ...]]
    notes: Notes
    over_kept: bool = False
    rewritten: Callable[[tuple[Any, ...], dict[str, Any], Kept], Arguments] | None = None
    within: tuple[str, ...] = ()
    owner: Any = None

    @property
    def inputs(self) -> list[Labels]:
        """The labels of all tensors that the layer is called with."""
        flat = keras.tree.flatten((self.args, self.kwargs))
        return [one for one in flat if isinstance(one, Labels)]

    @property
    def x(self) -> Labels:
        """The labels of the first tensor."""
        return self.inputs[0]

    def units(self, size: int, key: str = "units") -> Ids:
        """Returns labels for `size` units that this layer computes: the same ones at each call."""
        named = (id(self.layer), key)
        if named not in self.notes.units:
            self.notes.units[named] = self.notes.unions.new(size)
        return self.notes.units[named]

    def weight(self, variable: keras.Variable, *axes: WeightAxis | None) -> None:
        """Says whose units the axes of a weight belong to; None for an axis that stays."""
        known = self.notes.weights.setdefault(id(variable), list(axes))
        for before, now in zip(known, axes, strict=True):
            if before is not None and now is not None:
                self.merge(before.ids, now.ids)

    def merge(self, first: Ids, second: Ids) -> None:
        """Ties two axes: index i of one is removed with index i of the other."""
        self.notes.unions.merge(
            first, second, f"'{self.layer.name}' combines it with values that are fixed"
        )

    def protect(self, ids: Ids, reason: str) -> None:
        """Says that the units of an axis must stay."""
        self.notes.unions.protect(ids, reason)

    def resize(self, key: str, ids: Ids | Sequence[Ids | None]) -> None:
        """Says that a value of the layer's configuration counts the indices of an axis.

        Args:
            key: The key of `get_config()`.
            ids: The labels of that axis; for a value that is a list, those of each of its entries,
                None for one that stays as it is.
        """
        sizes = self.notes.sizes.setdefault(id(self.owner or self.layer), {})
        before = sizes.setdefault((*self.within, key), ids)
        if isinstance(before, Ids) and isinstance(ids, Ids):
            self.merge(before, ids)
        else:
            for one, other in zip(before, ids, strict=True):
                if one is not None and other is not None:
                    self.merge(one, other)

    def inner(self, layer: Any, within: tuple[str, ...], *inputs: Labels) -> Call:
        """Returns a call of a layer inside this one.

        Args:
            within: The keys that lead to its configuration in that of this layer.
        """
        return Call(
            layer, inputs, {}, self.shapes, self.notes,
            within=(*self.within, *within), owner=self.owner or self.layer,
        )  # fmt: skip

    def merge_broadcast(self, *tensors: Labels) -> Labels:
        """Ties tensors that are combined element by element, with NumPy's broadcasting."""
        rank = max(one.rank for one in tensors)
        axes: list[Ids] = []
        for back in range(rank, 0, -1):
            aligned = [one[-back] for one in tensors if one.rank >= back]
            widest = max(aligned, key=lambda ids: (len(ids), is_free(ids)))
            for ids in aligned:
                if len(ids) == len(widest):
                    self.merge(widest, ids)
            axes.append(widest)
        return Labels(tuple(axes))
