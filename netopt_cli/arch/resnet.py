"""Residual network, CIFAR style (He et al. 2016); depth 8 is ResNet-8 of MLPerf Tiny."""

from typing import Annotated

import keras
from pydantic import Field

from netopt_cli import blocks
from netopt_cli.errors import ArchError

_FILTERS = (16, 32, 64)


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    depth: Annotated[int, Field(ge=1)] = 8,
    width: blocks.Multiplier = 1.0,
    convolution: blocks.Convolution = "standard",
    residual: bool = True,
    conv_bias: bool = True,
    activation: blocks.Activation = "relu",
    normalization: blocks.Normalization = "batch",
    dropout: blocks.Rate = 0.0,
) -> keras.Model:
    """Builds three stages of (depth - 2) / 6 blocks of two convolutions, 16-32-64 filters.

    Depth 8 has 78,666 parameters at 32x32x3 and 10 classes, like MLPerf Tiny's (Banbury et al.
    2021): biases in convolutions, and a 1x1 convolution as the shortcut where the shape changes.

    Args:
        shape: (height, width, channels).
        classes: Number of logits.
        depth: Number of convolution units and the head, 6n + 2: 8, 14, 20, 32, 44, 56, 110.
        width: Multiplies the filters.
        convolution: Kind of the convolutions, except the first, which reads the raw channels.
        residual: Whether blocks add their input; False gives the plain network of the paper.
        conv_bias: Whether convolutions have a bias before a normalization; it folds away on export.
        activation: Of the hidden layers.
        normalization: After each convolution.
        dropout: Rate before the logits.

    Returns:
        A model from float32 (batch, *shape) to logits (batch, classes).

    Raises:
        ArchError: When samples are not images, too small, or `depth` is not 6n + 2.
    """
    blocks.require_image(shape, arch="resnet")
    blocks_a_stage, rest = divmod(depth - 2, 6)
    if rest or not blocks_a_stage:
        below = max(8, depth - rest)
        nearest = f"{below} or {below + 6}" if depth > 8 else "8"
        raise ArchError(f"arch.depth must be 6n + 2. Received: depth={depth}. Nearest: {nearest}")
    blocks.require_halvings(shape, 2, arch="resnet", advice="Use arch=mlp")
    use_bias = conv_bias or normalization == "none"

    inputs = keras.Input(shape, name="input")
    x = blocks.conv_unit(
        inputs,
        blocks.scaled(_FILTERS[0], width),
        3,
        name="stem_conv",
        normalization=normalization,
        activation=activation,
        use_bias=use_bias,
    )
    for i in range(3 * blocks_a_stage):
        stage, position = divmod(i, blocks_a_stage)
        name = f"block_{i + 1}"
        strides = 2 if stage and not position else 1
        branch = x
        for part in (1, 2):
            branch = blocks.conv_unit(
                branch,
                blocks.scaled(_FILTERS[stage], width),
                3,
                name=f"{name}_conv_{part}",
                strides=strides if part == 1 else 1,
                convolution=convolution,
                normalization=normalization,
                activation=activation,
                final_activation=part == 1,
                use_bias=use_bias,
            )
        if residual:
            branch = blocks.add_shortcut(x, branch, name=name, strides=strides, use_bias=use_bias)
        x = blocks.activate(branch, activation, name=name)
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    x = blocks.drop(x, dropout, name="dropout")
    return keras.Model(inputs, blocks.logits(x, classes), name="resnet")
