"""Rules of what works on each unit by itself: normalization by stored statistics, activations,
pooling, padding, noise, and elementwise merges."""

from __future__ import annotations

import keras
import numpy as np

from netopt_cli.graph.labels import Labels, fixed
from netopt_cli.graph.rule_call import Call, NoRule, Rule, follows
from netopt_cli.graph.rules_dense import image, is_elementwise, name_of, only_axis


def unchanged(call: Call) -> Labels:
    """The output has the units of the input, at the same places."""
    return call.x


def activation(call: Call) -> Labels:
    function = call.layer.activation
    if getattr(function, "__name__", "") in ("softmax", "log_softmax"):
        return softmax_like(call, -1)
    if not is_elementwise(function):
        raise NoRule(f"its activation '{name_of(function)}' is not known to keep units apart")
    return call.x


def softmax(call: Call) -> Labels:
    axis = call.layer.axis
    return softmax_like(call, *(axis if isinstance(axis, (list, tuple)) else [axis]))


def softmax_like(call: Call, *axes: int) -> Labels:
    """A result over the units that are left."""
    call.over_kept = any(axis % call.x.rank in call.x.free_axes for axis in axes)
    return call.x


def batch_norm(call: Call) -> Labels:
    layer = call.layer
    for variable in layer.weights:
        call.weight(variable, follows(call.x[layer.axis]))
    return call.x


def prelu(call: Call) -> Labels:
    shared = layer_axes(call.layer.shared_axes)
    call.weight(
        call.layer.alpha,
        *[
            None if axis in shared else follows(call.x[axis])
            for axis in range(1, call.x.rank)
        ],
    )  # fmt: skip
    return call.x


def layer_scale(call: Call) -> Labels:
    call.weight(call.layer.gamma, follows(call.x[-1]))
    call.resize("projection_dim", call.x[-1])
    return call.x


def of_data(call: Call) -> list[Labels]:
    """Preprocessing and augmentation, which mostly come before any unit."""
    if any(one.free_axes for one in call.inputs):
        raise NoRule("it is made for data, not for units")
    return [Labels.fixed(shape) for shape in call.shapes]


def layer_axes(axes: int | list[int] | tuple[int, ...] | None) -> tuple[int, ...]:
    if axes is None:
        return ()
    return (axes,) if isinstance(axes, int) else tuple(axes)


def scaled(call: Call) -> Labels:
    """Rescaling and Normalization, whose factors may be given for each channel."""
    layer = call.layer
    factors = (
        (layer.scale, layer.offset)
        if isinstance(layer, keras.layers.Rescaling)
        else (layer.input_mean, layer.input_variance, *layer.weights)
    )
    if call.x.free_axes and any(np.size(factor) > 1 for factor in factors if factor is not None):
        raise NoRule("it has numbers for each channel in its configuration")
    return call.x


def spatial(call: Call) -> Labels:
    """Pooling, padding, cropping, upsampling: the channels stay, the other axes change size."""
    axis = 1 if getattr(call.layer, "data_format", None) == "channels_first" else -1
    return image(call, axis, only_axis(call, axis))


def elementwise(call: Call) -> Labels:
    return call.merge_broadcast(*call.inputs)


def concatenate(call: Call) -> Labels:
    return concatenated(call, call.inputs, call.layer.axis)


def concatenated(call: Call, tensors: list[Labels], axis: int) -> Labels:
    axis %= tensors[0].rank
    first, *others = tensors
    for other in others:
        for position in range(first.rank):
            if position != axis:
                call.merge(first[position], other[position])
    joined = np.concatenate([one[axis] for one in tensors])
    unknown = call.shapes[0][axis] is None
    return first.with_axis(axis, fixed(None) if unknown else joined)


RULES: dict[type, Rule] = {
    **dict.fromkeys(
        (
            keras.layers.ActivityRegularization,
            keras.layers.AlphaDropout,
            keras.layers.Dropout,
            keras.layers.ELU,
            keras.layers.GaussianDropout,
            keras.layers.GaussianNoise,
            keras.layers.Identity,
            keras.layers.LeakyReLU,
            keras.layers.Masking,
            keras.layers.ReLU,
            keras.layers.SpatialDropout1D,
            keras.layers.SpatialDropout2D,
            keras.layers.SpatialDropout3D,
        ),
        unchanged,
    ),
    **dict.fromkeys(
        (
            keras.layers.AveragePooling1D,
            keras.layers.AveragePooling2D,
            keras.layers.AveragePooling3D,
            keras.layers.Cropping1D,
            keras.layers.Cropping2D,
            keras.layers.Cropping3D,
            keras.layers.GlobalAveragePooling1D,
            keras.layers.GlobalAveragePooling2D,
            keras.layers.GlobalAveragePooling3D,
            keras.layers.GlobalMaxPooling1D,
            keras.layers.GlobalMaxPooling2D,
            keras.layers.GlobalMaxPooling3D,
            keras.layers.MaxPooling1D,
            keras.layers.MaxPooling2D,
            keras.layers.MaxPooling3D,
            keras.layers.UpSampling1D,
            keras.layers.UpSampling2D,
            keras.layers.UpSampling3D,
            keras.layers.ZeroPadding1D,
            keras.layers.ZeroPadding2D,
            keras.layers.ZeroPadding3D,
        ),
        spatial,
    ),
    **dict.fromkeys(
        (
            keras.layers.Add,
            keras.layers.Average,
            keras.layers.Maximum,
            keras.layers.Minimum,
            keras.layers.Multiply,
            keras.layers.Subtract,
        ),
        elementwise,
    ),
    keras.layers.Activation: activation,
    keras.layers.BatchNormalization: batch_norm,
    keras.layers.Concatenate: concatenate,
    keras.layers.Normalization: scaled,
    keras.layers.PReLU: prelu,
    keras.layers.Rescaling: scaled,
    keras.layers.Softmax: softmax,
}

NAMED: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "AdaptiveAveragePooling1D",
            "AdaptiveAveragePooling2D",
            "AdaptiveAveragePooling3D",
            "AdaptiveMaxPooling1D",
            "AdaptiveMaxPooling2D",
            "AdaptiveMaxPooling3D",
            "CenterCrop",
            "Resizing",
        ),
        spatial,
    ),
    # Layers of keras.applications
    "CustomScaleLayer": elementwise,
    "LayerScale": layer_scale,
    "StochasticDepth": unchanged,
}
