"""Standard convolutions replaced by depthwise-separable or grouped ones."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from netopt_cli.errors import InputError
from netopt_cli.graph.calls import Call, calls, calls_by_layer, macs, positions
from netopt_cli.graph.naming import left_lines, matches, require_matches, unused_name
from netopt_cli.graph.rebuild import layers, plain_copy, rebuild

Convolution = Literal["separable", "grouped"]
Between = Literal["none", "batch_norm", "batch_norm_relu"]

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D)
_LINEAR = {"use_bias": False, "activation": "linear", "activity_regularizer": None}


@dataclass(frozen=True)
class Lightening:
    """What convolutions become.

    Attributes:
        convolution: `separable`: depthwise k×k, then 1×1 (Howard et al., 2017, arXiv:1704.04861).
            `grouped`: each group of outputs reads only its group of inputs (Krizhevsky et al.,
            2012; Xie et al., 2017, arXiv:1611.05431).
        multiplier: Of `separable`: depthwise filters for each input channel. The more, the nearer
            to the original (Guo et al., 2018, arXiv:1808.05517).
        between: Of `separable`: what goes between its two parts.
        groups: Of `grouped`: at most so many, as many as divide both numbers of channels.
        shuffle: Of `grouped`: mixes the input channels, so that a group reads some of each group of
            the layer before (Zhang et al., 2018, arXiv:1707.01083).
    """

    convolution: Convolution = "separable"
    multiplier: int = 1
    between: Between = "none"
    groups: int = 4
    shuffle: bool = False


@dataclass(frozen=True, eq=False)
class Replacement:
    """A convolution to be replaced; MACs over all its calls, before and after."""

    layer: keras.Layer
    macs: tuple[int, int]
    groups: int

    def __str__(self) -> str:
        kind = f"{self.groups} groups" if self.groups > 1 else "depthwise-separable"
        return f"{self.layer.name}: {kind}, MACs {self.macs[0]:,} → {self.macs[1]:,}"


def choose_replacements(
    model: keras.Model,
    lightening: Lightening,
    *,
    keep_first: bool = True,
    exclude: Sequence[str] = (),
) -> tuple[list[Replacement], list[str]]:
    """Chooses the convolutions to be replaced: those whose MACs fall.

    Args:
        model: Functional or Sequential, nested models and shared layers included.
        keep_first: Whether the first convolution, which reads the raw channels, is left alone.
        exclude: Patterns of layer names to leave alone.

    Returns:
        The replacements in the model's order, and lines that say what was left and why.

    Raises:
        InputError: A pattern matches nothing, or there is no standard convolution to replace.
    """
    its_calls = calls_by_layer(model)
    convolutions = {id(x): x for x in layers(model) if "Conv" in type(x).__name__}
    found = list(convolutions.values())
    require_matches([layer.name for layer in found], exclude, where="opt.lighten.exclude")
    first = next((call.layer for call in calls(model) if type(call.layer) in _CONVOLUTIONS), None)
    chosen: list[Replacement] = []
    left: list[tuple[str, str]] = []
    for layer in found:
        if matches(layer.name, exclude):
            reason: str | None = "excluded"
        elif keep_first and layer is first:
            reason = "the first convolution reads the raw channels (opt.lighten.keep_first)"
        else:
            reason = _unsupported(layer, lightening)
        if reason is None:
            replacement = _replacement(layer, its_calls[id(layer)], lightening)
            if replacement.macs[1] < replacement.macs[0]:
                chosen.append(replacement)
                continue
            reason = "its MACs would not fall"
        left.append((layer.name, reason))
    if not chosen:
        raise InputError(
            f"opt.lighten finds no convolution to replace in '{model.name}': "
            f"{'; '.join(left_lines(left)) or 'it has none'}"
        )
    return chosen, left_lines(left)


def lighten(
    model: keras.Model, replacements: Sequence[Replacement], lightening: Lightening
) -> keras.Model:
    """Rebuilds a model with lighter convolutions that start from the original kernels.

    A separable one starts as the nearest of its form: for each input channel, the truncated SVD of
    its window × filters. A grouped one starts from the blocks of the kernel that it keeps. The
    convolution that comes last keeps the layer's name, bias and activation.
    """
    taken = {layer.name for layer in layers(model)}
    make = _separable if lightening.convolution == "separable" else _grouped
    made = {id(r.layer): make(r, lightening, taken) for r in replacements}

    def clone(layer: keras.Layer) -> keras.Layer | None:
        return made[id(layer)].last if id(layer) in made else None

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if id(layer) in made:
            args = (made[id(layer)].before(args[0]), *args[1:])
        return new_layer(*args, **kwargs)

    rebuilt, _ = rebuild(model, clone=clone, call=call)
    for replacement in replacements:
        for layer, kernel in made[id(replacement.layer)].kernels:
            # The last part has the bias of the original.
            bias = replacement.layer.get_weights()[1:]
            layer.set_weights([kernel, *(bias if layer.name == replacement.layer.name else [])])
    return rebuilt


@dataclass(frozen=True, eq=False)
class _Made:
    """What stands for one layer; `kernels` are those that start from the original."""

    before: Callable[[keras.KerasTensor], keras.KerasTensor]
    last: keras.Layer
    kernels: list[tuple[keras.Layer, np.ndarray]]


def _unsupported(layer: keras.Layer, lightening: Lightening) -> str | None:
    separable = lightening.convolution == "separable"
    reason = None
    if type(layer) not in _CONVOLUTIONS:
        reason = f"{type(layer).__name__} is no standard convolution"
    elif layer.groups > 1:
        reason = "a grouped convolution is light already"
    elif layer.kernel_constraint is not None:
        reason = "a constraint on the kernel would not hold for its parts"
    elif not separable and _groups(layer, lightening.groups) == 1:
        reason = f"at most {lightening.groups} groups do not divide its channels"
    elif separable and math.prod(layer.kernel_size) == 1:
        reason = "a 1×1 convolution has nothing to separate"
    elif separable and len(set(layer.strides)) > 1:
        reason = "a depthwise convolution has equal strides on both axes"
    elif separable and layer.padding == "causal":
        reason = "a depthwise convolution has no causal padding"
    return reason


def _groups(layer: keras.Layer, most: int) -> int:
    common = math.gcd(*layer.kernel.shape[-2:])
    return max(n for n in range(1, min(most, common) + 1) if common % n == 0)


def _replacement(layer: keras.Layer, its_calls: list[Call], lightening: Lightening) -> Replacement:
    before = macs(layer, its_calls)
    if lightening.convolution == "grouped":
        groups = _groups(layer, lightening.groups)
        return Replacement(layer, (before, before // groups), groups)
    outputs = sum(positions(layer, call.outputs[0]) for call in its_calls)
    *window, channels, filters = layer.kernel.shape
    wide = channels * lightening.multiplier
    return Replacement(layer, (before, outputs * wide * (math.prod(window) + filters)), 1)


def _separable(replacement: Replacement, lightening: Lightening, taken: set[str]) -> _Made:
    layer = replacement.layer
    *window, channels, filters = layer.kernel.shape
    depthwise = _depthwise(layer, lightening.multiplier, taken)
    parts = [depthwise]
    if lightening.between != "none":
        axis = -1 if layer.data_format == "channels_last" else 1
        name = unused_name(f"{depthwise.name}_bn", taken)
        parts.append(keras.layers.BatchNormalization(axis=axis, name=name))
    if lightening.between == "batch_norm_relu":
        parts.append(keras.layers.ReLU(name=unused_name(f"{depthwise.name}_relu", taken)))
    ones = (1,) * len(window)
    last = plain_copy(layer, kernel_size=ones, strides=ones, dilation_rate=ones, padding="valid")
    # For each input channel: (window, out) ≈ Σ over the multiplier of (window) × (out).
    slices = layer.kernel.numpy().reshape(-1, channels, filters).transpose(1, 0, 2)
    left, values, right = np.linalg.svd(slices, full_matrices=False)
    used = min(lightening.multiplier, values.shape[-1])
    scale = np.sqrt(values[:, :used])
    spatial = np.zeros((channels, math.prod(window), lightening.multiplier), slices.dtype)
    spatial[..., :used] = left[..., :used] * scale[:, None]
    mixing = np.zeros((channels, lightening.multiplier, filters), slices.dtype)
    mixing[:, :used] = scale[..., None] * right[:, :used]
    return _Made(
        lambda x: functools.reduce(lambda value, part: part(value), parts, x),
        last,
        [
            (depthwise, spatial.transpose(1, 0, 2).reshape(*window, channels, -1)),
            (last, mixing.reshape(*ones, -1, filters)),
        ],
    )


def _depthwise(layer: keras.Layer, multiplier: int, taken: set[str]) -> keras.Layer:
    one_dimensional = isinstance(layer, keras.layers.Conv1D)
    make = keras.layers.DepthwiseConv1D if one_dimensional else keras.layers.DepthwiseConv2D
    return make(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        depth_multiplier=multiplier,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        depthwise_regularizer=layer.kernel_regularizer,
        dtype=layer.dtype_policy,
        name=unused_name(f"{layer.name}_depthwise", taken),
    )


def _grouped(replacement: Replacement, lightening: Lightening, taken: set[str]) -> _Made:
    layer, groups = replacement.layer, replacement.groups
    kernel = layer.kernel.numpy()
    *_, channels, filters = kernel.shape
    if lightening.shuffle:
        # Channel j of the shuffled input is channel (j % wide) · groups + j // wide.
        order = np.arange(channels).reshape(-1, groups).T.ravel()
        kernel = kernel[..., order, :]
    reads, makes = channels // groups, filters // groups
    blocks = [
        kernel[..., g * reads : (g + 1) * reads, g * makes : (g + 1) * makes] for g in range(groups)
    ]

    def before(x: keras.KerasTensor) -> keras.KerasTensor:
        return _shuffle(layer, groups, x, taken) if lightening.shuffle else x

    last = plain_copy(layer, groups=groups)
    return _Made(before, last, [(last, np.concatenate(blocks, axis=-1))])


def _shuffle(layer: keras.Layer, groups: int, x: keras.KerasTensor, taken: set[str]) -> Any:
    """(…, wide · groups) → (…, groups · wide), by reshaping, transposing and reshaping back."""
    axis = len(x.shape) - 2 if layer.data_format == "channels_last" else 0  # Without the batch.
    sizes = list(x.shape[1:])
    if sizes.count(None) > 1:
        raise InputError(
            f"opt.lighten.shuffle needs the sizes of what '{layer.name}' reads. Received: {x.shape}"
        )
    sizes = [-1 if size is None else size for size in sizes]
    split = [*sizes[:axis], sizes[axis] // groups, groups, *sizes[axis + 1 :]]
    order = list(range(1, len(split) + 1))
    order[axis], order[axis + 1] = order[axis + 1], order[axis]
    names = [unused_name(f"{layer.name}_{part}", taken) for part in ("split", "shuffle", "join")]
    x = keras.layers.Reshape(split, name=names[0])(x)
    x = keras.layers.Permute(order, name=names[1])(x)
    return keras.layers.Reshape(sizes, name=names[2])(x)
