"""AlexNet (Krizhevsky et al. 2012), original or adapted to small images."""

from typing import Literal

import keras

from netopt_cli import blocks
from netopt_cli.errors import ArchError

_SMALLEST_SIDE_FOR_ORIGINAL = 67  # 67 -> 15 -> 7 -> 3 -> 1


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    width: blocks.Multiplier = 0.25,
    stem: Literal["auto", "small", "original"] = "auto",
    activation: blocks.Activation = "relu",
    normalization: blocks.Normalization = "batch",
    dropout: blocks.Rate = 0.5,
) -> keras.Model:
    """Builds five convolutions (96-256-384-384-256 times `width`) and two dense layers (4096).

    The original reads its input with an 11x11 convolution of stride 4 and pools 3x3 with stride 2,
    overlapping: a 28x28 image would be gone after the second pooling. The small adaptation reads
    with a 5x5 convolution of stride 1 and pools 2x2; all the rest is the same. Batch normalization
    stands for the local response normalization of the paper, and convolutions are not split over
    two devices. `width=1`, `stem=original`, `normalization=none` has 62,378,344 parameters at
    227x227x3 and 1000 classes.

    Args:
        shape: (height, width, channels).
        classes: Number of logits.
        width: Multiplies filters and units.
        stem: First convolution and pooling; `auto` is `original` from 128x128 up.
        activation: Of the hidden layers.
        normalization: Between each convolution or dense layer and its activation.
        dropout: Rate after each hidden dense layer.

    Returns:
        A model from float32 (batch, *shape) to logits (batch, classes).

    Raises:
        ArchError: When samples are not images or too small for the stem.
    """
    blocks.require_image(shape, arch="alexnet")
    side = min(shape[:2])
    original = stem == "original" or (stem == "auto" and side >= 128)
    if original and side < _SMALLEST_SIDE_FOR_ORIGINAL:
        raise ArchError(
            f"alexnet with arch.stem=original needs an input of at least "
            f"{_SMALLEST_SIDE_FOR_ORIGINAL}x{_SMALLEST_SIDE_FOR_ORIGINAL}. "
            f"Received: {shape[0]}x{shape[1]}. Set arch.stem=small"
        )
    if not original:
        blocks.require_halvings(shape, 3, arch="alexnet", advice="Use arch=cnn")

    def conv(
        x: keras.KerasTensor, i: int, filters: int, size: int, *, valid_stride: int | None = None
    ) -> keras.KerasTensor:
        return blocks.conv_unit(
            x,
            blocks.scaled(filters, width),
            size,
            name=f"conv_{i}",
            strides=valid_stride or 1,
            padding="valid" if valid_stride else "same",
            normalization=normalization,
            activation=activation,
        )

    def pool(x: keras.KerasTensor, i: int) -> keras.KerasTensor:
        return keras.layers.MaxPooling2D(3 if original else 2, strides=2, name=f"pool_{i}")(x)

    inputs = keras.Input(shape, name="input")
    x = conv(inputs, 1, 96, 11, valid_stride=4) if original else conv(inputs, 1, 96, 5)
    x = pool(x, 1)
    x = pool(conv(x, 2, 256, 5), 2)
    x = conv(x, 3, 384, 3)
    x = conv(x, 4, 384, 3)
    x = pool(conv(x, 5, 256, 3), 3)
    x = keras.layers.Flatten(name="flatten")(x)
    for i in (1, 2):
        x = blocks.dense_unit(
            x,
            blocks.scaled(4096, width),
            name=f"dense_{i}",
            normalization=normalization,
            activation=activation,
            dropout=dropout,
        )
    return keras.Model(inputs, blocks.logits(x, classes), name="alexnet")
