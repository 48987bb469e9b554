"""The plain convolutional network of the textbook run: 32-64-128 filters, 128 units."""

import keras

from netopt_cli import blocks


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    filters: blocks.Counts = (32, 64, 128),
    kernel_size: blocks.Count = 3,
    dense: blocks.Count = 128,
    convolution: blocks.Convolution = "standard",
    activation: blocks.Activation = "relu",
    normalization: blocks.Normalization = "none",
    dropout: blocks.Rate = 0.0,
    residual: bool = False,
) -> keras.Model:
    """Builds stages of one convolution and 2x2 max pooling, then a dense layer.

    241,546 parameters at 28x28x1 and 10 classes.

    Args:
        shape: (height, width, channels).
        classes: Number of logits.
        filters: Of the stages, in order; each stage halves the sides.
        kernel_size: Side of the convolutions.
        dense: Units of the hidden dense layer.
        convolution: Kind of the convolutions, except the first, which reads the raw channels.
        activation: Of the hidden layers.
        normalization: Between each convolution or dense layer and its activation.
        dropout: Rate after the hidden dense layer.
        residual: Whether each stage after the first adds its input to its output.

    Returns:
        A model from float32 (batch, *shape) to logits (batch, classes).

    Raises:
        ArchError: When samples are not images or too small for the number of stages.
    """
    blocks.require_image(shape, arch="cnn")
    blocks.require_halvings(shape, len(filters), arch="cnn", advice="Shorten arch.filters")

    inputs = keras.Input(shape, name="input")
    x = inputs
    for i, count in enumerate(filters, start=1):
        name = f"conv_{i}"
        has_shortcut = residual and i > 1
        branch = blocks.conv_unit(
            x,
            count,
            kernel_size,
            name=name,
            convolution=convolution if i > 1 else "standard",
            normalization=normalization,
            activation=activation,
            final_activation=not has_shortcut,
        )
        if has_shortcut:
            x = blocks.add_shortcut(x, branch, name=name)
            x = blocks.activate(x, activation, name=f"{name}_add")
        else:
            x = branch
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
    return keras.Model(inputs, blocks.logits(x, classes), name="cnn")
