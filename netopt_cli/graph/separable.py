"""Separable convolutions as the two layers that they are, each of which can then be rewritten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from netopt_cli.graph.naming import unused_name
from netopt_cli.graph.rebuild import layers, rebuild

_PARTS = {
    keras.layers.SeparableConv1D: (keras.layers.DepthwiseConv1D, keras.layers.Conv1D),
    keras.layers.SeparableConv2D: (keras.layers.DepthwiseConv2D, keras.layers.Conv2D),
}


def split_separable(
    model: keras.Model, splits: Callable[[str], bool] = lambda name: True
) -> keras.Model:
    """Rebuilds a model with a depthwise and a 1×1 convolution for each separable one.

    It computes the same. The 1×1 convolution keeps the name, the bias and the activation.

    Args:
        splits: Name of a layer -> whether it is split.

    Returns:
        The same model where there is none.
    """
    found = [layer for layer in layers(model) if type(layer) in _PARTS and splits(layer.name)]
    if not found:
        return model
    taken = {layer.name for layer in layers(model)}
    parts = {id(layer): _parts(layer, taken) for layer in found}

    def clone(layer: keras.Layer) -> keras.Layer | None:
        return parts[id(layer)][1] if id(layer) in parts else None

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if id(layer) in parts:
            args = (parts[id(layer)][0](args[0]), *args[1:])
        return new_layer(*args, **kwargs)

    rebuilt, _ = rebuild(model, clone=clone, call=call)
    for layer in found:
        depthwise, pointwise = parts[id(layer)]
        kernel, *others = layer.get_weights()
        depthwise.set_weights([kernel])
        pointwise.set_weights(others)
    return rebuilt


def _parts(layer: keras.Layer, taken: set[str]) -> tuple[keras.Layer, keras.Layer]:
    depthwise_class, pointwise_class = _PARTS[type(layer)]
    config = layer.get_config()
    common = {key: config[key] for key in ("dtype", "trainable", "data_format")}
    depthwise = depthwise_class(
        **common,
        kernel_size=layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        depth_multiplier=layer.depth_multiplier,
        use_bias=False,
        depthwise_regularizer=config["depthwise_regularizer"],
        depthwise_constraint=config["depthwise_constraint"],
        name=unused_name(f"{layer.name}_depthwise", taken),
    )
    pointwise = pointwise_class(
        **common,
        filters=layer.filters,
        kernel_size=1,
        activation=config["activation"],
        use_bias=layer.use_bias,
        kernel_regularizer=config["pointwise_regularizer"],
        kernel_constraint=config["pointwise_constraint"],
        bias_regularizer=config["bias_regularizer"],
        bias_constraint=config["bias_constraint"],
        activity_regularizer=config["activity_regularizer"],
        name=layer.name,
    )
    return depthwise, pointwise
