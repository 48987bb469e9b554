"""The building blocks that archs share: a convolution or dense unit, its choices, its head.

A unit is convolution → normalization → activation, in that order, as separate layers, so that the
normalization folds into the convolution on export and every later stage finds each part by name:
`conv_1`, `conv_1_bn`, `conv_1_act`.
"""

from math import gcd, sqrt
from typing import Annotated, Literal

import keras
from pydantic import Field

from netopt_cli.errors import ArchError

Activation = Literal[
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "gelu",
    "swish",
    "hard_swish",
    "tanh",
    "sigmoid",
    "linear",
]
Convolution = Literal["standard", "depthwise_separable", "grouped", "bottleneck"]
Normalization = Literal["none", "batch", "layer", "group"]
Padding = Literal["valid", "same"]

Count = Annotated[int, Field(ge=1)]
Counts = tuple[Count, ...]
Multiplier = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]

# Keras' own 0.99 needs some 500 steps before the moving statistics are worth anything.
_BATCH_MOMENTUM = 0.9
_GROUPS_OF_CONVOLUTION = 4
_GROUPS_OF_NORMALIZATION = 8
_BOTTLENECK_REDUCTION = 4
_NORMALIZATION_SUFFIX = {"batch": "bn", "layer": "ln", "group": "gn"}


def require_image(shape: tuple[int, ...], *, arch: str) -> None:
    """Checks that samples are images, (height, width, channels).

    Raises:
        ArchError: When the rank of `shape` is not 3.
    """
    if len(shape) != 3:
        raise ArchError(
            f"{arch} needs images of shape (height, width, channels). Received: shape={shape}. "
            "Use arch=mlp for vectors"
        )


def require_series(shape: tuple[int, ...], *, arch: str, also: str = "") -> None:
    """Refuses samples without steps.

    Args:
        also: What else the arch takes, with a comma and a space behind it.

    Raises:
        ArchError: Naming the arch and the shape.
    """
    if len(shape) not in {2, 3}:
        raise ArchError(
            f"{arch} needs {also}sequences of shape (steps, features) or images of shape (height, "
            f"width, channels). Received: shape={shape}. Use arch=mlp for vectors"
        )


def rows_as_steps(x: keras.KerasTensor) -> keras.KerasTensor:
    """(batch, height, width, channels) -> (batch, height, width * channels); a series as it is."""
    if len(x.shape) == 3:
        return x
    _, height, width, channels = x.shape
    return keras.layers.Reshape((height, width * channels), name="rows")(x)


def require_halvings(shape: tuple[int, ...], halvings: int, *, arch: str, advice: str) -> None:
    """Checks that both sides of an image can be halved `halvings` times and stay at least 1.

    Args:
        shape: (height, width, channels).
        advice: What to change when they cannot: `Shorten arch.filters`.

    Raises:
        ArchError: Naming the smallest side that works, and the advice.
    """
    needed = 2**halvings
    height, width, _ = shape
    if min(height, width) < needed:
        raise ArchError(
            f"{arch} needs an input of at least {needed}x{needed} for {halvings} halvings of its "
            f"sides (pooling or stride 2). Received: {height}x{width}. "
            f"{advice}, or use larger images"
        )


def fitting_halvings(shape: tuple[int, ...], *, most: int, smallest_side: int = 4) -> int:
    """Returns how often the shorter side can be halved, rounding up, and stay `smallest_side`.

    Args:
        shape: (height, width, channels).
        most: The answer for an image that is large enough.
    """
    side = min(shape[:2])
    halvings = 0
    while halvings < most and -(-side // 2) >= smallest_side:
        side = -(-side // 2)
        halvings += 1
    return halvings


def scaled(filters: int, width: float) -> int:
    """Returns `filters` scaled by a width multiplier, at least 1."""
    return max(1, int(filters * width))


def normalize(x: keras.KerasTensor, kind: Normalization, *, name: str) -> keras.KerasTensor:
    """Normalizes over the last axis; the number of groups adapts to a divisor of its size."""
    if kind == "none":
        return x
    name = f"{name}_{_NORMALIZATION_SUFFIX[kind]}"
    if kind == "batch":
        return keras.layers.BatchNormalization(momentum=_BATCH_MOMENTUM, name=name)(x)
    if kind == "layer":
        return keras.layers.LayerNormalization(name=name)(x)
    groups = gcd(_GROUPS_OF_NORMALIZATION, x.shape[-1])
    return keras.layers.GroupNormalization(groups, name=name)(x)


def activate(x: keras.KerasTensor, kind: Activation, *, name: str) -> keras.KerasTensor:
    if kind == "linear":
        return x
    return keras.layers.Activation(kind, name=f"{name}_act")(x)


def drop(x: keras.KerasTensor, rate: float, *, name: str) -> keras.KerasTensor:
    """Adds a dropout layer when the rate is not 0."""
    return keras.layers.Dropout(rate, name=name)(x) if rate else x


def conv_unit(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    name: str,
    strides: int = 1,
    padding: Padding = "same",
    convolution: Convolution = "standard",
    normalization: Normalization = "none",
    activation: Activation = "relu",
    final_activation: bool = True,
    use_bias: bool | None = None,
) -> keras.KerasTensor:
    """A convolution, each of its parts followed by normalization and activation.

    Args:
        x: (batch, height, width, channels).
        name: Name of the convolution; its parts and followers get it as a prefix.
        convolution: `standard`; `depthwise_separable`, a depthwise and a 1x1 convolution (Howard et
            al. 2017, MobileNets); `grouped`, at most 4 groups, as many as divide both numbers of
            channels (Krizhevsky et al. 2012; Xie et al. 2017, ResNeXt); `bottleneck`, a 1x1
            convolution to a quarter of the filters, the convolution proper, a 1x1 convolution back
            (He et al. 2016).
        final_activation: Whether the last part is activated; the inner parts always are. A residual
            branch is not.
        use_bias: Whether convolutions have a bias; by default only without normalization, which
            has an offset of its own.

    Returns:
        (batch, new height, new width, filters).
    """
    bias = normalization == "none" if use_bias is None else use_bias
    bottleneck = max(1, filters // _BOTTLENECK_REDUCTION)

    def conv(
        name: str, filters: int, size: int, *, spatial: bool = True, groups: int = 1
    ) -> keras.layers.Layer:
        return keras.layers.Conv2D(
            filters,
            size,
            strides=strides if spatial else 1,
            padding=padding if spatial else "same",
            groups=groups,
            use_bias=bias,
            kernel_initializer="he_normal",
            name=name,
        )

    if convolution == "standard":
        parts = [conv(name, filters, kernel_size)]
    elif convolution == "grouped":
        groups = gcd(_GROUPS_OF_CONVOLUTION, x.shape[-1], filters)
        parts = [conv(name, filters, kernel_size, groups=groups)]
    elif convolution == "depthwise_separable":
        parts = [
            keras.layers.DepthwiseConv2D(
                kernel_size,
                strides=strides,
                padding=padding,
                use_bias=bias,
                # He's, whose fan-in Keras overstates by the number of channels.
                depthwise_initializer=keras.initializers.RandomNormal(stddev=sqrt(2) / kernel_size),
                name=f"{name}_depthwise",
            ),
            conv(f"{name}_pointwise", filters, 1, spatial=False),
        ]
    else:
        parts = [
            conv(f"{name}_reduce", bottleneck, 1, spatial=False),
            conv(f"{name}_spatial", bottleneck, kernel_size),
            conv(f"{name}_expand", filters, 1, spatial=False),
        ]

    for part in parts:
        x = normalize(part(x), normalization, name=part.name)
        if final_activation or part is not parts[-1]:
            x = activate(x, activation, name=part.name)
    return x


def add_shortcut(
    x: keras.KerasTensor,
    branch: keras.KerasTensor,
    *,
    name: str,
    strides: int = 1,
    use_bias: bool = True,
) -> keras.KerasTensor:
    """Adds the input of a residual branch to its output (He et al. 2016).

    Where the shape changes, the input goes through a 1x1 convolution, without normalization.

    Args:
        x: (batch, height, width, channels), what `branch` was computed from.
        branch: (batch, height / strides, width / strides, filters).
        name: Prefix of the layers.
    """
    if strides != 1 or x.shape[-1] != branch.shape[-1]:
        x = keras.layers.Conv2D(
            branch.shape[-1],
            1,
            strides=strides,
            padding="same",
            use_bias=use_bias,
            kernel_initializer="he_normal",
            name=f"{name}_shortcut",
        )(x)
    return keras.layers.Add(name=f"{name}_add")([x, branch])


def dense_unit(
    x: keras.KerasTensor,
    units: int,
    *,
    name: str,
    normalization: Normalization = "none",
    activation: Activation = "relu",
    dropout: float = 0.0,
) -> keras.KerasTensor:
    """Dense → normalization → activation → dropout: (batch, features) to (batch, units)."""
    x = keras.layers.Dense(
        units,
        use_bias=normalization == "none",
        kernel_initializer="he_normal",
        name=name,
    )(x)
    x = normalize(x, normalization, name=name)
    x = activate(x, activation, name=name)
    return drop(x, dropout, name=f"{name}_dropout")


def max_pool(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """Halves height and width, rounding down."""
    return keras.layers.MaxPooling2D(2, name=name)(x)


def logits(x: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """The head of every arch, (batch, features) to (batch, classes), in float32.

    float32 whatever the precision of the rest: the loss of half-precision logits overflows.
    """
    return keras.layers.Dense(classes, dtype="float32", name="logits")(x)
