"""VGG: stages of repeated 3x3 convolutions and 2x2 max pooling (Simonyan and Zisserman 2015)."""

from typing import Literal

import keras

from netopt_cli import blocks
from netopt_cli.errors import ArchError


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    widths: blocks.Counts = (32, 64, 128),
    repeats: blocks.Counts = (2, 2, 2),
    pooling: Literal["global_average", "flatten"] = "global_average",
    dense: blocks.Counts = (),
    convolution: blocks.Convolution = "standard",
    activation: blocks.Activation = "relu",
    normalization: blocks.Normalization = "batch",
    dropout: blocks.Rate = 0.0,
) -> keras.Model:
    """Builds a VGG; the default is a small one, 29 M multiply-accumulates at 28x28x1.

    VGG-16 of the paper is `widths=[64,128,256,512,512]`, `repeats=[2,2,3,3,3]`, `pooling=flatten`,
    `dense=[4096,4096]`, `normalization=none`, `dropout=0.5`: 138,357,544 parameters at 224x224x3
    and 1000 classes, with one dropout more, after each stage.

    Args:
        shape: (height, width, channels).
        classes: Number of logits.
        widths: Filters of the stages, in order; each stage halves the sides.
        repeats: Convolutions of the stages; as many entries as `widths`.
        pooling: How the last feature map becomes a vector.
        dense: Units of the dense layers before the logits.
        convolution: Kind of the convolutions, except the first, which reads the raw channels.
        activation: Of the hidden layers.
        normalization: Between each convolution or dense layer and its activation.
        dropout: Rate after each stage and each dense layer.

    Returns:
        A model from float32 (batch, *shape) to logits (batch, classes).

    Raises:
        ArchError: When samples are not images, too small for the number of stages, or `widths` and
            `repeats` differ in length.
    """
    blocks.require_image(shape, arch="vgg")
    if len(widths) != len(repeats):
        raise ArchError(
            "arch.widths and arch.repeats must have one entry a stage each. "
            f"Received: widths={list(widths)}, repeats={list(repeats)}"
        )
    blocks.require_halvings(
        shape, len(widths), arch="vgg", advice="Shorten arch.widths and arch.repeats"
    )

    inputs = keras.Input(shape, name="input")
    x = inputs
    for stage, (count, repeat) in enumerate(zip(widths, repeats, strict=True), start=1):
        for i in range(1, repeat + 1):
            x = blocks.conv_unit(
                x,
                count,
                3,
                name=f"stage_{stage}_conv_{i}",
                convolution=convolution if (stage, i) != (1, 1) else "standard",
                normalization=normalization,
                activation=activation,
            )
        x = blocks.max_pool(x, name=f"stage_{stage}_pool")
        x = blocks.drop(x, dropout, name=f"stage_{stage}_dropout")
    if pooling == "global_average":
        x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    else:
        x = keras.layers.Flatten(name="flatten")(x)
    for i, units in enumerate(dense, start=1):
        x = blocks.dense_unit(
            x,
            units,
            name=f"dense_{i}",
            normalization=normalization,
            activation=activation,
            dropout=dropout,
        )
    return keras.Model(inputs, blocks.logits(x, classes), name="vgg")
