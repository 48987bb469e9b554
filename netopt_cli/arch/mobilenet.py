"""MobileNet v1 (Howard et al. 2017) and v2 (Sandler et al. 2018), strides adapted to the image."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Literal

import keras
from pydantic import Field

from netopt_cli import blocks

# Filters, and whether the block halves the sides.
_V1 = (
    (64, False),
    (128, True),
    (128, False),
    (256, True),
    (256, False),
    (512, True),
    *[(512, False)] * 5,
    (1024, True),
    (1024, False),
)
# Expansion, filters, blocks, and whether the first of them halves the sides.
_V2 = (
    (1, 16, 1, False),
    (6, 24, 2, True),
    (6, 32, 3, True),
    (6, 64, 4, True),
    (6, 96, 3, False),
    (6, 160, 3, True),
    (6, 320, 1, False),
)
_HALVINGS = 5


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    variant: Literal["v1", "v2"] = "v1",
    alpha: blocks.Multiplier = 0.25,
    halvings: Annotated[int, Field(ge=0, le=_HALVINGS)] | None = None,
    residual: bool = True,
    activation: blocks.Activation = "relu6",
    normalization: blocks.Normalization = "batch",
    dropout: blocks.Rate = 0.0,
) -> keras.Model:
    """Builds a stack of depthwise-separable blocks (v1) or inverted residuals (v2).

    The original halves its input five times, at the stem and in four blocks. On small images the
    earliest halvings are left out. The body has as many parameters as that of
    `keras.applications.MobileNet` or `MobileNetV2` with the same `alpha`.

    Args:
        shape: (height, width, channels).
        classes: Number of logits.
        variant: `v1`, depthwise-separable blocks; `v2`, inverted residuals with linear bottlenecks.
        alpha: Multiplies the filters.
        halvings: How often the sides are halved, at most 5; None takes as many as leave a last
            feature map of at least 4x4.
        residual: Whether v2's blocks of equal shape add their input; v1 has no such blocks.
        activation: Of the hidden layers.
        normalization: After each convolution.
        dropout: Rate before the logits.

    Returns:
        A model from float32 (batch, *shape) to logits (batch, classes).

    Raises:
        ArchError: When samples are not images, or too small for `halvings`.
    """
    blocks.require_image(shape, arch="mobilenet")
    if halvings is None:
        halvings = blocks.fitting_halvings(shape, most=_HALVINGS)
    else:
        blocks.require_halvings(shape, halvings, arch="mobilenet", advice="Lower arch.halvings")

    conv = partial(blocks.conv_unit, normalization=normalization, activation=activation)
    strides = iter([1] * (_HALVINGS - halvings) + [2] * halvings)
    inputs = keras.Input(shape, name="input")
    if variant == "v1":
        x = _separable_blocks(inputs, conv, alpha, strides)
    else:
        x = _inverted_residuals(inputs, conv, alpha, strides, residual)
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = blocks.drop(x, dropout, name="dropout")
    return keras.Model(inputs, blocks.logits(x, classes), name="mobilenet")


def _separable_blocks(
    x: keras.KerasTensor,
    conv: Callable[..., keras.KerasTensor],
    alpha: float,
    strides: Iterator[int],
) -> keras.KerasTensor:
    x = conv(x, blocks.scaled(32, alpha), 3, name="stem_conv", strides=next(strides))
    for i, (filters, halves) in enumerate(_V1, start=1):
        x = conv(
            x,
            blocks.scaled(filters, alpha),
            3,
            name=f"block_{i}",
            strides=next(strides) if halves else 1,
            convolution="depthwise_separable",
        )
    return x


def _inverted_residuals(
    x: keras.KerasTensor,
    conv: Callable[..., keras.KerasTensor],
    alpha: float,
    strides: Iterator[int],
    residual: bool,
) -> keras.KerasTensor:
    x = conv(x, _multiple_of_8(32 * alpha), 3, name="stem_conv", strides=next(strides))
    number = 0
    for expansion, filters, repeats, halves in _V2:
        for position in range(repeats):
            number += 1
            name = f"block_{number}"
            stride = next(strides) if halves and not position else 1
            branch = x
            if expansion > 1:
                branch = conv(x, x.shape[-1] * expansion, 1, name=f"{name}_expand")
            branch = conv(
                branch,
                _multiple_of_8(filters * alpha),
                3,
                name=name,
                strides=stride,
                convolution="depthwise_separable",
                final_activation=False,
            )
            if residual and stride == 1 and x.shape[-1] == branch.shape[-1]:
                branch = blocks.add_shortcut(x, branch, name=name)
            x = branch
    return conv(x, _multiple_of_8(1280 * max(1.0, alpha)), 1, name="head_conv")


def _multiple_of_8(filters: float) -> int:
    """Rounds to a multiple of 8 that is at least 8 and 90 % of `filters`, as the paper's code."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded
