"""Removing channels: a model that is really smaller, and the one of the same shapes it stands for.

For any choice of units, `remove(model, graph, removed)` and `masked(model, graph, removed)` compute
the same. What mixes units without a weight for each of them (LayerNormalization, a softmax or a
mean over channels) works in both on the units that are left.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from netopt_cli.errors import ArchError, InputError, did_you_mean
from netopt_cli.graph.channels import CallNote, ChannelGraph, read_channels, weights_by_path
from netopt_cli.graph.labels import Ids, Labels
from netopt_cli.graph.rebuild import plain_copy, rebuild
from netopt_cli.graph.rule_call import Arguments

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
        args, kwargs = cut.arguments(cut.next_call(layer), args, kwargs)
        return new_layer(*args, **kwargs)

    smaller, _ = rebuild(model, clone=clone, call=call)
    for layer, new_layer in pairs:
        if new_layer is not layer and isinstance(layer, keras.Layer):
            _fill(new_layer, [cut.sliced(variable) for variable in layer.weights])
    return smaller


def kept_indices(
    model: keras.Model, graph: ChannelGraph, removed: Removed
) -> dict[str, tuple[np.ndarray | None, ...]]:
    """Returns path of each weight -> what `remove` keeps of each of its axes, None for all of it.

    Raises:
        InputError: As `remove`.
    """
    cut = _Cut(model, graph, removed)
    return {
        path: tuple(
            None if kept is None or kept.all() else np.flatnonzero(kept)
            for kept in cut.kept_of_axes(variable)
        )
        for path, variable in weights_by_path(model).items()
    }


def masked(model: keras.Model, graph: ChannelGraph, removed: Removed) -> keras.Model:
    """Returns a copy of the model in which all weights of the removed units are zero.

    Raises:
        InputError, ArchError: As `remove`.
    """
    cut = _Cut(model, graph, removed)
    pairs: list[tuple[keras.Layer, keras.Layer]] = []
    parts: dict[int, Any] = {}

    def clone(layer: keras.Layer) -> keras.Layer:
        new_layer = plain_copy(layer)
        pairs.append((layer, new_layer))
        if cut.changes_result(layer):
            part = cut.resized(layer)
            if isinstance(layer, keras.Layer) and layer.weights:
                # Built now, since `_Part` never calls it, and under its own name.
                new_layer.build_from_config(layer.get_build_config())
                part = _Part(new_layer, part, cut.kept_of_weights(layer), name=layer.name)
            parts[id(layer)] = part
        return new_layer

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        note = cut.next_call(layer)
        if note is None or id(layer) not in parts:
            return new_layer(*args, **kwargs)
        args, kwargs = _each_tensor(_take, (args, kwargs), cut.all_kept(note.inputs))
        args, kwargs = cut.arguments(note, args, kwargs)
        outputs = parts[id(layer)](*args, **kwargs)
        return _each_tensor(_put_back, outputs, cut.all_kept(note.outputs))

    copy, _ = rebuild(model, clone=clone, call=call)
    for layer, new_layer in pairs:
        if new_layer is not layer and isinstance(layer, keras.Layer):
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
        if not isinstance(layer, keras.Layer):
            if not sizes:
                return layer
            # A bare operation has an attribute for each argument of its constructor.
            names = list(inspect.signature(type(layer).__init__).parameters)[1:]
            values = {name: getattr(layer, name) for name in names}
            for (key,), ids in sizes.items():
                values[key] = self._size(values[key], ids)
            return type(layer)(**values)
        config = _unbuilt(layer.get_config())
        for keys, ids in sizes.items():
            inner = config
            for key in keys[:-1]:
                inner = inner[key]
            inner[keys[-1]] = self._size(inner[keys[-1]], ids)
        return plain_copy(layer, **config)

    def _size(self, value: Any, ids: Ids | Sequence[Ids | None]) -> Any:
        if isinstance(ids, Ids):
            return int(self.kept(ids).sum())
        old_values = value if isinstance(value, (list, tuple)) else [None] * len(ids)
        return tuple(
            old if one is None or not (one.any() or old is None) else int(self.kept(one).sum())
            for old, one in zip(old_values, ids, strict=True)
        )

    def next_call(self, layer: keras.Layer) -> CallNote | None:
        """Returns what was said about the next call of a layer, in the order of the graph."""
        notes = self._graph.calls.get(id(layer))
        if notes is None:
            return None
        number = self._calls.get(id(layer), 0)
        self._calls[id(layer)] = number + 1
        return notes[number]

    def arguments(
        self, note: CallNote | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments:
        """Returns the arguments of a call as they are after the cut."""
        if note is None or note.rewritten is None:
            return args, kwargs
        return note.rewritten(args, kwargs, self.kept)

    def changes_result(self, layer: keras.Layer) -> bool:
        """Whether a layer mixes units of which some go: its result is over the others."""
        return any(
            note.over_kept
            and not all(self.kept(ids).all() for one in note.inputs for ids in one.axes)
            for note in self._graph.calls.get(id(layer), ())
        )

    def all_kept(self, tensors: list[Labels]) -> list[list[np.ndarray]]:
        """Returns for each tensor what stays of each of its axes."""
        return [[self.kept(ids) for ids in labels.axes] for labels in tensors]

    def kept_of_weights(self, layer: keras.Layer) -> list[list[np.ndarray | None]]:
        """Returns for each weight of a layer what stays of each of its axes."""
        return [self.kept_of_axes(variable) for variable in layer.weights]

    def kept_of_axes(self, variable: keras.Variable) -> list[np.ndarray | None]:
        """Returns what stays of each axis of a weight; [] where no rule speaks of it."""
        return [
            None if axis is None else self.kept(axis.ids)
            for axis in self._graph.notes.weights.get(id(variable), ())
        ]

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


def _fill(layer: keras.Layer, values: list[np.ndarray]) -> None:
    shapes = [tuple(variable.shape) for variable in layer.weights]
    if shapes != [value.shape for value in values]:
        raise ArchError(
            f"The rule of {type(layer).__qualname__} does not fit layer '{layer.name}': it leaves "
            f"weights of shapes {[value.shape for value in values]}, the layer built anew has "
            f"{shapes}. Does the rule resize every value of its configuration?"
        )
    layer.set_weights(values)


def _unbuilt(config: Any) -> Any:
    """Returns a configuration without the input shapes that layers inside it were built for."""
    if not isinstance(config, dict):
        return config
    return {key: _unbuilt(value) for key, value in config.items() if key != "build_config"}


class _Part(keras.layers.Layer):
    """A layer that computes with the part of its weights that stays.

    Args:
        whole: The layer with all weights.
        part: The same layer of the size that is left; its own weights are not used.
        kept: For each weight, what stays of each of its axes.
    """

    def __init__(
        self,
        whole: keras.Layer,
        part: keras.Layer,
        kept: list[list[np.ndarray | None]],
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.whole = whole
        self._part = lambda: part  # hidden from Keras, which would count its weights
        self._kept = kept

    def build(self, input_shape: Any) -> None:
        self._part().build(input_shape)
        self.built = True

    def call(self, inputs: Any) -> Any:
        weights = [
            _take(variable.value, kept)
            for variable, kept in zip(self.whole.weights, self._kept, strict=True)
        ]
        return self._part().stateless_call(weights, [], inputs)[0]


def _each_tensor(
    function: Callable[[Any, Any], Any], structure: Any, kept: list[list[np.ndarray]]
) -> Any:
    rest = iter(kept)
    return keras.tree.map_structure(
        lambda one: function(one, next(rest)) if isinstance(one, keras.KerasTensor) else one,
        structure,
    )


def _take(tensor: Any, kept: Sequence[np.ndarray | None]) -> Any:
    """Takes the indices that stay, along each axis."""
    for axis, one in enumerate(kept):
        if one is not None and not one.all():
            tensor = keras.ops.take(tensor, np.flatnonzero(one), axis)
    return tensor


def _put_back(tensor: Any, kept: Sequence[np.ndarray]) -> Any:
    """Puts what stays back to its places, along each axis, with zeros between."""
    for axis, one in enumerate(kept):
        if not one.all():
            widths = [(0, 1) if other == axis else (0, 0) for other in range(len(kept))]
            places = np.where(one, np.cumsum(one) - 1, one.sum())
            tensor = keras.ops.take(keras.ops.pad(tensor, widths), places, axis)
    return tensor
