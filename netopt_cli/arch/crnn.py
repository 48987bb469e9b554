"""Convolutional recurrent network: a convolution of the spectrum, recurrent layers over time."""

from typing import Literal

import keras

from netopt_cli import blocks
from netopt_cli.errors import ArchError

_LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    filters: blocks.Count = 32,
    kernel: tuple[blocks.Count, blocks.Count] = (10, 4),
    strides: tuple[blocks.Count, blocks.Count] = (2, 2),
    cell: Literal["lstm", "gru"] = "gru",
    units: blocks.Counts = (32, 32),
    bidirectional: bool = False,
    dense: blocks.Count = 64,
    activation: blocks.Activation = "relu",
    normalization: blocks.Normalization = "batch",
    unroll: bool = True,
    dropout: blocks.Rate = 0.2,
) -> keras.Model:
    """Builds a convolution whose frames are the steps of recurrent layers, then a dense layer
    (Arik et al. 2017, arXiv:1703.05390; as small as Zhang et al. 2017, arXiv:1711.07128, have it).

    Args:
        shape: (frames, bins, channels).
        classes: Number of logits.
        filters: Of the convolution.
        kernel: (frames, bins) that it sees.
        strides: (frames, bins) that it moves by.
        cell: `lstm` or `gru`.
        units: Of the recurrent layers, in order; in each direction.
        bidirectional: Whether each of them also reads from the end.
        dense: Units of the dense layer.
        activation: Of the convolution and the dense layer.
        normalization: After the convolution.
        unroll: Whether the steps are laid out in the graph. As a loop the network trains and builds
            faster, but its file cannot be int8.
        dropout: Rate after the dense layer.

    Returns:
        A model from float32 (batch, *shape) to logits (batch, classes).

    Raises:
        ArchError: When samples are not (frames, bins, channels), or there is no recurrent layer.
    """
    blocks.require_image(shape, arch="crnn")
    if not units:
        raise ArchError("arch.units must name at least one layer. Received: []")
    inputs = keras.Input(shape, name="input")
    x = keras.layers.Conv2D(
        filters,
        kernel,
        strides=strides,
        padding="same",
        use_bias=normalization == "none",
        kernel_initializer="he_normal",
        name="conv",
    )(inputs)
    x = blocks.normalize(x, normalization, name="conv")
    x = blocks.activate(x, activation, name="conv")
    frames, bins, channels = x.shape[1:]
    x = keras.layers.Reshape((frames, bins * channels), name="steps")(x)
    for i, count in enumerate(units, start=1):
        layer = _LAYERS[cell](
            count, return_sequences=i < len(units), unroll=unroll, name=f"{cell}_{i}"
        )
        if bidirectional:
            layer = keras.layers.Bidirectional(layer, name=f"bidirectional_{i}")
        x = layer(x)
    x = blocks.dense_unit(x, dense, name="dense", activation=activation, dropout=dropout)
    return keras.Model(inputs, blocks.logits(x, classes), name="crnn")
