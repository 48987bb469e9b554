"""Rules of the layers with one matrix or kernel: Dense, convolutions, Embedding."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from netopt_cli.graph.labels import Ids, Labels
from netopt_cli.graph.rule_call import Call, NoRule, Rule, consumes, follows, produces

_MIXING_ACTIVATIONS = {"softmax", "log_softmax", "sparsemax", "glu"}


def dense(call: Call) -> Labels:
    layer = call.layer
    refuse_adapters(layer)
    out = call.units(layer.units)
    call.weight(layer.kernel, consumes(call.x[-1]), produces(out))
    if layer.use_bias:
        call.weight(layer.bias, produces(out))
    call.resize("units", out)
    hold_unless_elementwise(call, layer.activation, out)
    return call.x.with_axis(-1, out)


def convolution(call: Call) -> Labels:
    """Convolutions of any number of dimensions, grouped or not."""
    layer = call.layer
    refuse_adapters(layer)
    taken, out = grouped(call, only_axis(call, channel_axis(layer)), layer.filters, layer.groups)
    call.weight(layer.kernel, *[None] * layer.rank, consumes(taken), produces(out))
    if layer.use_bias:
        call.weight(layer.bias, produces(out))
    call.resize("filters", out)
    hold_unless_elementwise(call, layer.activation, out)
    return image(call, channel_axis(layer), out)


def grouped(call: Call, x: Ids, size: int, groups: int) -> tuple[Ids, Ids]:
    """Ties what must stay evenly divided.

    With few wide groups each of them loses the same positions; with many narrow ones whole groups
    are the units.

    Returns:
        The labels of the kernel's input axis, and those of its `size` outputs.
    """
    if groups == 1:
        return x, call.units(size)
    width = len(x) // groups
    if groups > width:
        unit = call.units(groups)
        call.merge(x, np.repeat(unit, width))
        call.resize("groups", unit)
        # The kernel has one input axis for all groups.
        return np.zeros(width, int), np.repeat(unit, size // groups)
    for first in range(width, len(x), width):
        call.merge(x[:width], x[first : first + width])
    return x[:width], np.tile(call.units(size // groups), groups)


def transposed_convolution(call: Call) -> Labels:
    layer = call.layer
    out = call.units(layer.filters)
    x = only_axis(call, channel_axis(layer))
    call.weight(layer.kernel, *[None] * layer.rank, produces(out), consumes(x))
    if layer.use_bias:
        call.weight(layer.bias, produces(out))
    call.resize("filters", out)
    hold_unless_elementwise(call, layer.activation, out)
    return image(call, channel_axis(layer), out)


def depthwise_convolution(call: Call) -> Labels:
    layer = call.layer
    x = only_axis(call, channel_axis(layer))
    out = np.repeat(x, layer.depth_multiplier)
    call.weight(layer.kernel, *[None] * layer.rank, follows(x), None)
    if layer.use_bias:
        call.weight(layer.bias, follows(out))
    hold_unless_elementwise(call, layer.activation, out)
    return image(call, channel_axis(layer), out)


def separable_convolution(call: Call) -> Labels:
    layer = call.layer
    x = only_axis(call, channel_axis(layer))
    out = call.units(layer.filters)
    call.weight(layer.depthwise_kernel, *[None] * layer.rank, follows(x), None)
    between = np.repeat(x, layer.depth_multiplier)
    call.weight(layer.pointwise_kernel, *[None] * layer.rank, consumes(between), produces(out))
    if layer.use_bias:
        call.weight(layer.bias, produces(out))
    call.resize("filters", out)
    hold_unless_elementwise(call, layer.activation, out)
    return image(call, channel_axis(layer), out)


def embedding(call: Call) -> Labels:
    layer = call.layer
    refuse_adapters(layer)
    out = call.units(layer.output_dim)
    call.weight(layer.embeddings, None, produces(out))
    call.resize("output_dim", out)
    return Labels((*call.x.axes, out))


def channel_axis(layer: Any) -> int:
    return 1 if layer.data_format == "channels_first" else -1


def only_axis(call: Call, axis: int) -> Ids:
    """Returns the labels of one axis of the input; the others must keep their size."""
    position = axis % call.x.rank
    for other in call.x.free_axes:
        if other != position:
            call.protect(call.x[other], f"'{call.layer.name}' works along their axis {other}")
    return call.x[axis]


def image(call: Call, axis: int, ids: Ids) -> Labels:
    """Returns the labels of an output whose other axes are fixed."""
    return Labels.fixed(call.shapes[0]).with_axis(axis, ids)


def hold_unless_elementwise(call: Call, activation: Any, ids: Ids) -> None:
    """Protects units whose activation mixes them, or is not known."""
    if not is_elementwise(activation):
        call.protect(
            ids, f"its activation '{name_of(activation)}' is not known to keep units apart"
        )


def is_elementwise(activation: Any) -> bool:
    """Whether an activation function of Keras works on each value by itself."""
    if activation is None:
        return True
    of_keras = (getattr(activation, "__module__", None) or "").startswith("keras.")
    mixes = name_of(activation).lower() in _MIXING_ACTIVATIONS
    return of_keras and not mixes and not getattr(activation, "weights", ())


def name_of(activation: Any) -> str:
    return getattr(activation, "__name__", type(activation).__name__)


def refuse_adapters(layer: Any) -> None:
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        raise NoRule("it has LoRA or quantized weights")


RULES: dict[type, Rule] = {
    keras.layers.Dense: dense,
    keras.layers.Conv1D: convolution,
    keras.layers.Conv2D: convolution,
    keras.layers.Conv3D: convolution,
    keras.layers.Conv1DTranspose: transposed_convolution,
    keras.layers.Conv2DTranspose: transposed_convolution,
    keras.layers.Conv3DTranspose: transposed_convolution,
    keras.layers.DepthwiseConv1D: depthwise_convolution,
    keras.layers.DepthwiseConv2D: depthwise_convolution,
    keras.layers.SeparableConv1D: separable_convolution,
    keras.layers.SeparableConv2D: separable_convolution,
    keras.layers.Embedding: embedding,
}
