"""LeNet-5 as Caffe ships it: 20 and 50 filters, 500 units (LeCun et al. 1998; Jia et al. 2014)."""

from typing import Literal

import keras

from netopt_cli import blocks
from netopt_cli.errors import ArchError

_SMALLEST_SIDE_FOR_VALID = 16  # 16 -> 12 -> 6 -> 2 -> 1


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    filters: tuple[blocks.Count, blocks.Count] = (20, 50),
    dense: blocks.Count = 500,
    padding: Literal["auto", "valid", "same"] = "auto",
    activation: blocks.Activation = "relu",
    normalization: blocks.Normalization = "none",
    dropout: blocks.Rate = 0.0,
) -> keras.Model:
    """Builds two 5x5 convolutions with 2x2 max pooling: 431,080 parameters at 28x28x1, 10 classes.

    Args:
        shape: (height, width, channels).
        classes: Number of logits.
        filters: Of the two convolutions.
        dense: Units of the hidden dense layer.
        padding: Of the convolutions; `auto` is `valid`, as in Caffe, when both sides are at least
            16, and `same` on smaller images.
        activation: Of the hidden layers. Caffe's own has none after its convolutions.
        normalization: Between each convolution or dense layer and its activation.
        dropout: Rate after the hidden dense layer.

    Returns:
        A model from float32 (batch, *shape) to logits (batch, classes).

    Raises:
        ArchError: When samples are not images or too small for the padding.
    """
    blocks.require_image(shape, arch="lenet5")
    height, width, _ = shape
    large_enough = min(height, width) >= _SMALLEST_SIDE_FOR_VALID
    if padding == "valid" and not large_enough:
        raise ArchError(
            f"lenet5 with arch.padding=valid needs an input of at least 16x16. "
            f"Received: {height}x{width}. Set arch.padding=same"
        )
    blocks.require_halvings(shape, 2, arch="lenet5", advice="Use arch=mlp")
    conv_padding: blocks.Padding = "valid" if padding != "same" and large_enough else "same"

    inputs = keras.Input(shape, name="input")
    x = inputs
    for i, count in enumerate(filters, start=1):
        x = blocks.conv_unit(
            x,
            count,
            5,
            name=f"conv_{i}",
            padding=conv_padding,
            normalization=normalization,
            activation=activation,
        )
        x = blocks.max_pool(x, name=f"pool_{i}")
    x = keras.layers.Flatten(name="flatten")(x)
    x = blocks.dense_unit(
        x,
        dense,
        name="dense_1",
        normalization=normalization,
        activation=activation,
        dropout=dropout,
    )
    return keras.Model(inputs, blocks.logits(x, classes), name="lenet5")
