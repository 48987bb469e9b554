"""Small residual modules put behind the layers of a trained network."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras

from netopt_cli.graph.calls import Edges
from netopt_cli.graph.naming import unused_name
from netopt_cli.graph.rebuild import activation_of, layers, multiplies, rebuild

_FOLLOWERS = (keras.layers.BatchNormalization, keras.layers.Dropout, keras.layers.ReLU)


def with_adapters(
    model: keras.Model, hosts: Collection[str], units: int
) -> tuple[keras.Model, list[str]]:
    """Puts x + up(relu(down(x))) behind layers, normalization and activation of each included.

    `down` has `units` outputs, 1x1 convolutions on images and dense layers elsewhere (Houlsby et
    al., 2019; Rebuffi et al., 2017). `up` starts at zero, so that the function stays the same.

    Args:
        hosts: Names of dense layers and convolutions; others, those of channels first and those
            called in several places get none.

    Returns:
        The model, and the names of the new layers that have weights.
    """
    taken = {layer.name for layer in layers(model)}
    edges = Edges(model)
    places: dict[int, str] = {}
    for layer in layers(model):
        if layer.name in hosts and _can_host(layer, edges):
            places[id(_end_of_unit(layer, edges))] = unused_name(f"{layer.name}_adapter", taken)

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        outputs = new_layer(*args, **kwargs)
        name = places.get(id(layer))
        return outputs if name is None else _adapted(outputs, name, units)

    rebuilt, _ = rebuild(model, call=call)
    return rebuilt, [f"{name}_{part}" for name in places.values() for part in ("down", "up")]


def _can_host(layer: keras.Layer, edges: Edges) -> bool:
    is_last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return multiplies(layer) and is_last and edges.places(layer) == 1


def _end_of_unit(layer: keras.Layer, edges: Edges) -> keras.Layer:
    """The last of a layer's normalization, activation and dropout."""
    while True:
        user = edges.only_user(layer)
        is_follower = isinstance(user, _FOLLOWERS) or (
            isinstance(user, keras.Layer) and not multiplies(user) and activation_of(user)
        )
        if user is None or not is_follower or edges.places(user) != 1:
            return layer
        layer = user


def _adapted(x: keras.KerasTensor, name: str, units: int) -> keras.KerasTensor:
    down = _linear(x, units, f"{name}_down", activation="relu")
    up = _linear(down, x.shape[-1], f"{name}_up", kernel_initializer="zeros")
    return keras.layers.Add(name=name)([x, up])


def _linear(x: keras.KerasTensor, units: int, name: str, **options: Any) -> keras.KerasTensor:
    if len(x.shape) == 4:
        return keras.layers.Conv2D(units, 1, name=name, **options)(x)
    return keras.layers.Dense(units, name=name, **options)(x)
