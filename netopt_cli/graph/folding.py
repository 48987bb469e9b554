"""BatchNormalization folded into the convolution or dense layer beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from netopt_cli.graph.calls import Edges
from netopt_cli.graph.naming import left_lines
from netopt_cli.graph.rebuild import layers, plain_copy, rebuild

_PLAIN = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_MULTIPLYING = (*_PLAIN, *_DEPTHWISE, *_SEPARABLE, *_TRANSPOSED)


def fold_batch_norms(model: keras.Model) -> tuple[keras.Model, list[str], list[str]]:
    """Folds every BatchNormalization that can be, with the same outputs at inference.

    At inference it computes scale · x + offset for each channel (Ioffe and Szegedy, 2015; Jacob et
    al., 2018, arXiv:1712.05877, 3.2). That goes into the layer before it, when that one is linear;
    else into the layer after it, when no padding would mix zeros among the offsets. Zeros of the
    kernels stay zeros.

    Args:
        model: Functional or Sequential, nested models included; it is not changed.

    Returns:
        The rebuilt model; a line for each fold; and lines that say what was left and why.

    Raises:
        ArchError: The model is subclassed.
    """
    folding = _Folding(Edges(model))
    for layer in list({id(layer): layer for layer in layers(model)}.values()):
        if isinstance(layer, keras.layers.BatchNormalization):
            folding.fold(layer)

    def clone(layer: keras.Layer) -> keras.Layer | None:
        if id(layer) not in folding.weights:
            return None
        copies[id(layer)] = plain_copy(layer, use_bias=True)
        return copies[id(layer)]

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if id(layer) in folding.into else new_layer(*args, **kwargs)

    copies: dict[int, keras.Layer] = {}
    rebuilt, _ = rebuild(model, clone=clone, call=call)
    for key, weights in folding.weights.items():
        copies[key].set_weights([*weights.kernels, weights.bias])
    return rebuilt, folding.lines, left_lines(folding.left)


@dataclass
class _Weights:
    """Those of a layer that folds, as they become: kernels, the last one first to the outputs."""

    kernels: list[np.ndarray]
    bias: np.ndarray


@dataclass
class _Folding:
    """What was folded so far; layers by identity, since names repeat when nested."""

    edges: Edges
    into: dict[int, keras.Layer] = field(default_factory=dict)
    """Folded BatchNormalization -> the layer that took it in."""
    after: set[int] = field(default_factory=set)
    """Those of `into` that came after their layer."""
    weights: dict[int, _Weights] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)

    def fold(self, norm: keras.layers.BatchNormalization) -> None:
        if type(norm) is not keras.layers.BatchNormalization:
            self.left.append((norm.name, f"{type(norm).__name__} may be anything"))
            return
        if self.edges.places(norm) > 1:
            self.left.append((norm.name, "it is called in several places"))
            return
        scale, offset = _affine(norm)
        layer, no_before = self._before(norm)
        if layer is not None:
            _scale_outputs(layer, self._weights(layer), scale, offset)
            self.after.add(id(norm))
        else:
            layer, no_after = self._after(norm)
            if layer is None:
                self.left.append((norm.name, f"{no_before}, and {no_after}"))
                return
            _scale_inputs(layer, self._weights(layer), scale, offset)
        self.into[id(norm)] = layer
        self.lines.append(f"{norm.name}: folded into {layer.name}")

    def _before(self, norm: keras.Layer) -> tuple[keras.Layer | None, str]:
        """Returns the layer before a norm that can take it in, or why there is none."""
        layer = self.edges.only_source(norm)
        if layer is None:
            return None, "nothing is before it"
        if self.edges.only_user(layer) is not norm:
            return None, f"what {layer.name} computes is used elsewhere too"
        if id(layer) in self.after:  # A norm that is gone: its layer stands there now.
            layer = self.into[id(layer)]
        if type(layer) not in _MULTIPLYING:
            return None, "no convolution or dense layer is before it"
        reason = _unfoldable(layer, self.edges)
        if reason is None and layer.activation is not keras.activations.linear:
            reason = f"the activation of {layer.name} comes between"
        if reason is None and _axis(norm) != _channel_axis(layer, norm):
            reason = "its axis is not that of the channels"
        return (layer, "") if reason is None else (None, reason)

    def _after(self, norm: keras.Layer) -> tuple[keras.Layer | None, str]:
        """Returns the layer after a norm that can take it in, or why there is none."""
        layer = self.edges.only_user(norm)
        if layer is None or type(layer) not in (*_PLAIN, *_DEPTHWISE):
            return None, "none that could take it in is after it"
        reason = _unfoldable(layer, self.edges)
        padded = getattr(layer, "padding", "valid") != "valid"
        if reason is None and padded and math.prod(layer.kernel_size) > 1:
            reason = f"{layer.name} pads with zeros after it"
        if reason is None and _axis(norm) != _channel_axis(layer, norm):
            reason = "its axis is not that of the channels"
        return (layer, "") if reason is None else (None, reason)

    def _weights(self, layer: keras.Layer) -> _Weights:
        if id(layer) not in self.weights:
            values = layer.get_weights()
            if layer.use_bias:
                *kernels, bias = values
            else:
                kernels, bias = values, np.zeros(_outputs(layer), values[0].dtype)
            self.weights[id(layer)] = _Weights(kernels, bias)
        return self.weights[id(layer)]


def _unfoldable(layer: keras.Layer, edges: Edges) -> str | None:
    """Says why a layer cannot take in any norm."""
    if edges.places(layer) > 1:
        return f"{layer.name} is called in several places"
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return f"{layer.name} is quantized or has an adapter"
    constraints = ("kernel_constraint", "depthwise_constraint", "pointwise_constraint")
    if any(getattr(layer, name, None) is not None for name in (*constraints, "bias_constraint")):
        return f"the weights of {layer.name} are constrained"
    return None


def _affine(norm: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """scale and offset, (channels,) each, in float64: close folds must not add up errors."""
    mean = norm.moving_mean.numpy().astype(np.float64)
    scale = 1.0 / np.sqrt(norm.moving_variance.numpy().astype(np.float64) + norm.epsilon)
    if norm.scale:
        scale = scale * norm.gamma.numpy()
    offset = -mean * scale
    if norm.center:
        offset = offset + norm.beta.numpy()
    return scale, offset


def _scale_outputs(
    layer: keras.Layer, weights: _Weights, scale: np.ndarray, offset: np.ndarray
) -> None:
    kernel = weights.kernels[-1]
    if isinstance(layer, _TRANSPOSED):
        by_output = scale[:, None]  # (…, out, in)
    elif isinstance(layer, _DEPTHWISE):
        by_output = scale.reshape(kernel.shape[-2:])  # (…, in, multiplier)
    else:
        by_output = scale  # (…, in, out)
    weights.kernels[-1] = kernel * by_output
    weights.bias = weights.bias * scale + offset


def _scale_inputs(
    layer: keras.Layer, weights: _Weights, scale: np.ndarray, offset: np.ndarray
) -> None:
    (kernel,) = weights.kernels
    groups = getattr(layer, "groups", 1)
    if isinstance(layer, _DEPTHWISE):
        by_input, added = scale[:, None], offset[:, None]  # (…, in, multiplier)
    else:
        # (…, in / groups, out): a group of outputs reads its own inputs.
        repeats = kernel.shape[-1] // groups
        by_input, added = (
            np.repeat(values.reshape(groups, -1).T, repeats, axis=1) for values in (scale, offset)
        )
    window = tuple(range(kernel.ndim - 2))
    offsets = (kernel * added).sum(axis=window)  # (in / groups, out) or (in, multiplier)
    weights.bias = weights.bias + (
        offsets.ravel() if isinstance(layer, _DEPTHWISE) else offsets.sum(axis=0)
    )
    weights.kernels[0] = kernel * by_input


def _outputs(layer: keras.Layer) -> int:
    """Returns the channels that a layer puts out."""
    if isinstance(layer, keras.layers.Dense):
        return layer.units
    if isinstance(layer, _DEPTHWISE):
        return math.prod(layer.kernel.shape[-2:])
    return layer.filters


def _axis(norm: keras.layers.BatchNormalization) -> int:
    return norm.axis % norm.input_spec.ndim


def _channel_axis(layer: keras.Layer, norm: keras.Layer) -> int:
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return 1 if first else norm.input_spec.ndim - 1
