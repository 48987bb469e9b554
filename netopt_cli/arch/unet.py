"""U-Net (Ronneberger et al. 2015): an encoder, and a decoder that sees what each level saw."""

import keras

from netopt_cli import blocks
from netopt_cli.errors import ArchError


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    filters: blocks.Counts = (16, 32, 64),
    kernel_size: blocks.Count = 3,
    convolutions: blocks.Count = 2,
    convolution: blocks.Convolution = "standard",
    activation: blocks.Activation = "relu",
    normalization: blocks.Normalization = "batch",
    dropout: blocks.Rate = 0.0,
) -> keras.Model:
    """Builds levels of convolutions, each at half the sides of the one before, and the way back up:
    nearest pixels twice as large, beside what the level had, then convolutions again.

    Convolutions are padded, so that there is a class for every pixel.

    Args:
        shape: (height, width, channels); both sides multiples of 2 ** (levels - 1).
        classes: Number of logits at each pixel.
        filters: Of the levels, from the image down.
        kernel_size: Side of the convolutions.
        convolutions: Of each level, on either way.
        convolution: Kind of the convolutions, except the first, which reads the raw channels.
        activation: Of the hidden layers.
        normalization: Between each convolution and its activation.
        dropout: Rate after the deepest level.

    Returns:
        A model from float32 (batch, *shape) to logits (batch, height, width, classes).

    Raises:
        ArchError: When samples are not images, or their sides cannot be halved and doubled again.
    """
    blocks.require_image(shape, arch="unet")
    multiple = 2 ** (len(filters) - 1)
    if not filters or shape[0] % multiple or shape[1] % multiple:
        raise ArchError(
            f"unet of {len(filters)} levels needs one at least, and sides that are multiples of "
            f"{multiple:g}. Received: arch.filters={list(filters)}, images of "
            f"{shape[0]}x{shape[1]}. Change arch.filters or the size of the images"
        )

    def level(x: keras.KerasTensor, count: int, name: str) -> keras.KerasTensor:
        for i in range(1, convolutions + 1):
            is_first = name == "down_1" and i == 1
            x = blocks.conv_unit(
                x,
                count,
                kernel_size,
                name=f"{name}_conv_{i}",
                convolution="standard" if is_first else convolution,
                normalization=normalization,
                activation=activation,
            )
        return x

    inputs = keras.Input(shape, name="input")
    x = inputs
    seen: list[keras.KerasTensor] = []
    for i, count in enumerate(filters, start=1):
        if seen:
            x = blocks.max_pool(x, name=f"pool_{i - 1}")
        x = level(x, count, f"down_{i}")
        seen.append(x)
    x = blocks.drop(x, dropout, name="dropout")
    for i in range(len(filters) - 1, 0, -1):
        x = keras.layers.UpSampling2D(2, name=f"up_{i}")(x)
        x = keras.layers.Concatenate(name=f"beside_{i}")([seen[i - 1], x])
        x = level(x, filters[i - 1], f"up_{i}")
    head = keras.layers.Conv2D(classes, 1, dtype="float32", name="logits")
    return keras.Model(inputs, head(x), name="unet")
