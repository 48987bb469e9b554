"""Removing channels: a model that is really smaller, and the one of the same shapes it stands for.

For any choice of units, `remove(model, graph, removed)` and `masked(model, graph, removed)` compute
the same. What mixes units without a weight for each of them (LayerNormalization, a softmax or a
mean over channels) works in both on the units that are left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from netopt_cli.errors import InputError, did_you_mean
from netopt_cli.graph.channels import ChannelGraph, read_channels
from netopt_cli.graph.labels import Ids, Labels
from netopt_cli.graph.rebuild import plain_copy, rebuild

Removed = Mapping[str, Sequence[int] | np.ndarray]
"""Name of a group -> the indices of its units to remove."""


def remove(model: keras.Model, graph: ChannelGraph, removed: Removed) -> keras.Model:
    """Returns the smaller model; names of layers and paths of weights stay.

    Args:
        model: The model, or one of the same structure, that `graph` was read from.

    Raises:
        InputError: When a group is unknown, an index out of range, or no unit would be left.
        ArchError: When a layer cannot be rebuilt from its configuration.
    """
    cut = _Cut(model, graph, removed)
    pairs: list[tuple[keras.Layer, keras.Layer]] = []

    def clone(layer: keras.Layer) -> keras.Layer:
        new_layer = cut.resized(layer)
        pairs.append((layer, new_layer))
        return new_layer

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = cut.rewritten(layer, args, kwargs)
        return new_layer(*args, **kwargs)

    smaller, _ = rebuild(model, clone=clone, call=call)
    for layer, new_layer in pairs:
        if isinstance(layer, keras.Layer):
            new_layer.set_weights([cut.sliced(variable) for variable in layer.weights])
    return smaller


def masked(model: keras.Model, graph: ChannelGraph, removed: Removed) -> keras.Model:
    """Returns a copy of the model in which all weights of the removed units are zero.

    Raises:
        InputError, ArchError: As `remove`.
    """
    cut = _Cut(model, graph, removed)
    pairs: list[tuple[keras.Layer, keras.Layer]] = []

    def clone(layer: keras.Layer) -> keras.Layer:
        new_layer = plain_copy(layer)
        pairs.append((layer, new_layer))
        return new_layer

    copy, _ = rebuild(model, clone=clone)
    for layer, new_layer in pairs:
        if isinstance(layer, keras.Layer):
            new_layer.set_weights([cut.zeroed(variable) for variable in layer.weights])
    return copy


class _Cut:
    """One choice of units to remove, applied to weights, configurations and arguments."""

    def __init__(self, model: keras.Model, graph: ChannelGraph, removed: Removed) -> None:
        if graph.model is not model:
            graph = read_channels(model)
        self._graph = graph
        self._unions = graph.notes.unions
        self._gone = np.zeros(len(self._unions), bool)
        groups = {group.name: group for group in graph.groups}
        for name, indices in removed.items():
            if name not in groups:
                raise InputError(
                    f"The model has no group '{name}' of channels.{did_you_mean(name, groups)}"
                )
            group = groups[name]
            chosen = np.unique(np.asarray(indices, int))
            if chosen.size and not (chosen[0] >= 0 and chosen[-1] < group.size):
                raise InputError(
                    f"Indices of group '{name}' must be in [0, {group.size}). "
                    f"Received: {chosen[0]} to {chosen[-1]}"
                )
            if len(chosen) == group.size:
                raise InputError(
                    f"Group '{name}' must keep at least one of its {group.size} units. "
                    "Received: all of them to be removed"
                )
            self._gone[group.ids[chosen]] = True
        self._calls: dict[int, int] = {}

    def kept(self, ids: Ids) -> np.ndarray:
        """Returns which indices of an axis stay, bool (n,)."""
        return ~self._gone[self._unions.roots(ids)]

    def resized(self, layer: keras.Layer) -> keras.Layer:
        """Returns a new layer of the size that is left."""
        sizes = self._graph.notes.sizes.get(id(layer), {})
        if not sizes:
            return plain_copy(layer)
        config = layer.get_config()
        for keys, ids in sizes.items():
            inner = config
            for key in keys[:-1]:
                inner = inner[key]
            inner[keys[-1]] = self._size(inner[keys[-1]], ids)
        return type(layer).from_config(config)

    def _size(self, value: Any, ids: Ids | Sequence[Ids | None]) -> Any:
        if isinstance(ids, Ids):
            return int(self.kept(ids).sum())
        return tuple(
            old if one is None or not one.any() else int(self.kept(one).sum())
            for old, one in zip(value, ids, strict=True)
        )

    def rewritten(
        self, layer: keras.Layer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments of the next call of a layer, as they are after the cut."""
        notes = self._graph.calls.get(id(layer), [])
        number = self._calls.get(id(layer), 0)
        self._calls[id(layer)] = number + 1
        if number >= len(notes) or notes[number].rewritten is None:
            return args, kwargs
        return notes[number].rewritten(args, kwargs, self.kept)

    def sliced(self, variable: keras.Variable) -> np.ndarray:
        value = variable.numpy()
        for axis, part in enumerate(self._graph.notes.weights.get(id(variable), ())):
            if part is not None:
                value = np.compress(self.kept(part.ids), value, axis)
        return value

    def zeroed(self, variable: keras.Variable) -> np.ndarray:
        value = variable.numpy()
        for axis, part in enumerate(self._graph.notes.weights.get(id(variable), ())):
            if part is not None:
                shape = [-1 if other == axis else 1 for other in range(value.ndim)]
                value = np.where(self.kept(part.ids).reshape(shape), value, 0)
        return value
