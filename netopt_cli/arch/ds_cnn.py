"""Depthwise-separable CNN for keyword spotting, that of MLPerf Tiny by default."""

import keras

from netopt_cli import blocks


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    filters: blocks.Count = 64,
    separable_blocks: blocks.Count = 4,
    stem_kernel: tuple[blocks.Count, blocks.Count] = (10, 4),
    stem_strides: tuple[blocks.Count, blocks.Count] = (2, 2),
    activation: blocks.Activation = "relu",
    normalization: blocks.Normalization = "batch",
    stem_dropout: blocks.Rate = 0.2,
    dropout: blocks.Rate = 0.4,
) -> keras.Model:
    """Builds one convolution and depthwise-separable blocks of 3x3: 24,908 parameters at 49x10x1
    and 12 classes, as the reference of MLPerf Tiny (Banbury et al. 2021, arXiv:2106.07597; the
    network is DS-CNN-S of Zhang et al. 2017, arXiv:1711.07128).

    As there, convolutions have a bias besides their normalization.

    Args:
        shape: (frames, bins, channels).
        classes: Number of logits.
        filters: Of every convolution.
        separable_blocks: How many follow the first convolution.
        stem_kernel: (frames, bins) that the first convolution sees.
        stem_strides: (frames, bins) that it moves by.
        activation: Of the hidden layers.
        normalization: After each convolution.
        stem_dropout: Rate after the first convolution.
        dropout: Rate before the pooling.

    Returns:
        A model from float32 (batch, *shape) to logits (batch, classes).

    Raises:
        ArchError: When samples are not (frames, bins, channels).
    """
    blocks.require_image(shape, arch="ds_cnn")
    inputs = keras.Input(shape, name="input")
    x = keras.layers.Conv2D(
        filters,
        stem_kernel,
        strides=stem_strides,
        padding="same",
        kernel_initializer="he_normal",
        name="stem_conv",
    )(inputs)
    x = blocks.normalize(x, normalization, name="stem_conv")
    x = blocks.activate(x, activation, name="stem_conv")
    x = blocks.drop(x, stem_dropout, name="stem_dropout")
    for i in range(1, separable_blocks + 1):
        x = blocks.conv_unit(
            x,
            filters,
            3,
            name=f"block_{i}",
            convolution="depthwise_separable",
            normalization=normalization,
            activation=activation,
            use_bias=True,
        )
    x = blocks.drop(x, dropout, name="dropout")
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    return keras.Model(inputs, blocks.logits(x, classes), name="ds_cnn")
