"""Inception: GoogLeNet's modules of four parallel branches (Szegedy et al. 2015)."""

from typing import Annotated, NamedTuple

import keras
from pydantic import Field

from netopt_cli import blocks


class _Filters(NamedTuple):
    """Filters of one module: GoogLeNet's table 1."""

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int


_STAGES = {
    "3": {
        "a": _Filters(64, 96, 128, 16, 32, 32),
        "b": _Filters(128, 128, 192, 32, 96, 64),
    },
    "4": {
        "a": _Filters(192, 96, 208, 16, 48, 64),
        "b": _Filters(160, 112, 224, 24, 64, 64),
        "c": _Filters(128, 128, 256, 24, 64, 64),
        "d": _Filters(112, 144, 288, 32, 64, 64),
        "e": _Filters(256, 160, 320, 32, 128, 128),
    },
    "5": {
        "a": _Filters(256, 160, 320, 32, 128, 128),
        "b": _Filters(384, 192, 384, 48, 128, 128),
    },
}
_HALVINGS = 5
_UpTo2 = Annotated[int, Field(ge=1, le=2)]
_UpTo5 = Annotated[int, Field(ge=1, le=5)]


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    width: blocks.Multiplier = 0.25,
    modules: tuple[_UpTo2, _UpTo5, _UpTo2] = (2, 2, 2),
    halvings: Annotated[int, Field(ge=0, le=_HALVINGS)] | None = None,
    activation: blocks.Activation = "relu",
    normalization: blocks.Normalization = "batch",
    dropout: blocks.Rate = 0.4,
) -> keras.Model:
    """Builds GoogLeNet without its auxiliary heads, scaled by `width`.

    The original halves its input five times: stride 2 and two poolings in the stem, one pooling
    before each of the last two stages. On small images the halvings of the stem are left out first.
    GoogLeNet itself is `width=1`, `modules=[2,5,2]`, `normalization=none`: 6,998,552 parameters at
    224x224x3 and 1000 classes.

    Args:
        shape: (height, width, channels).
        classes: Number of logits.
        width: Multiplies the filters.
        modules: Modules of the three stages, the first ones of GoogLeNet's 2, 5 and 2.
        halvings: How often the sides are halved, at most 5; None takes as many as leave a last
            feature map of at least 4x4.
        activation: Of the hidden layers.
        normalization: Between each convolution and its activation; the paper has none.
        dropout: Rate before the logits.

    Returns:
        A model from float32 (batch, *shape) to logits (batch, classes).

    Raises:
        ArchError: When samples are not images, or too small for `halvings`.
    """
    blocks.require_image(shape, arch="inception")
    if halvings is None:
        halvings = blocks.fitting_halvings(shape, most=_HALVINGS)
    else:
        blocks.require_halvings(shape, halvings, arch="inception", advice="Lower arch.halvings")

    def conv(
        x: keras.KerasTensor, filters: int, size: int, name: str, strides: int = 1
    ) -> keras.KerasTensor:
        return blocks.conv_unit(
            x,
            blocks.scaled(filters, width),
            size,
            name=name,
            strides=strides,
            normalization=normalization,
            activation=activation,
        )

    def halve(x: keras.KerasTensor, rank: int, name: str) -> keras.KerasTensor:
        """Pools where the halving of this rank, counted from the last one, is wanted."""
        if rank > halvings:
            return x
        return keras.layers.MaxPooling2D(3, strides=2, padding="same", name=name)(x)

    inputs = keras.Input(shape, name="input")
    stem_halves = halvings >= _HALVINGS
    x = conv(inputs, 64, 7 if stem_halves else 3, "stem_conv_1", strides=2 if stem_halves else 1)
    x = halve(x, 4, "stem_pool_1")
    x = conv(x, 64, 1, "stem_conv_2")
    x = conv(x, 192, 3, "stem_conv_3")
    x = halve(x, 3, "stem_pool_2")
    for (stage, table), count in zip(_STAGES.items(), modules, strict=True):
        if stage == "4":
            x = halve(x, 2, "stage_4_pool")
        if stage == "5":
            x = halve(x, 1, "stage_5_pool")
        for letter, filters in list(table.items())[:count]:
            name = f"module_{stage}{letter}"
            pooled = keras.layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
            branches = [
                conv(x, filters.one, 1, f"{name}_1x1"),
                conv(
                    conv(x, filters.three_reduce, 1, f"{name}_3x3_reduce"),
                    filters.three,
                    3,
                    f"{name}_3x3",
                ),
                conv(
                    conv(x, filters.five_reduce, 1, f"{name}_5x5_reduce"),
                    filters.five,
                    5,
                    f"{name}_5x5",
                ),
                conv(pooled, filters.pool, 1, f"{name}_pool_1x1"),
            ]
            x = keras.layers.Concatenate(name=f"{name}_concat")(branches)
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = blocks.drop(x, dropout, name="dropout")
    return keras.Model(inputs, blocks.logits(x, classes), name="inception")
