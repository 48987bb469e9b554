"""Recurrent network over the rows of an image, or over the steps of a sequence."""

from typing import Literal

import keras

from netopt_cli import blocks
from netopt_cli.errors import ArchError

_LAYERS = {
    "simple": keras.layers.SimpleRNN,
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
}


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    cell: Literal["simple", "lstm", "gru"] = "lstm",
    units: blocks.Counts = (64,),
    unroll: bool = True,
    dropout: blocks.Rate = 0.0,
) -> keras.Model:
    """Builds recurrent layers, the logits from the last step: 24,458 parameters at 28x28x1 and 10
    classes.

    Args:
        shape: (steps, features), or (height, width, channels), of which each row is a step.
        classes: Number of logits.
        cell: `simple` (Elman, 1990), `lstm` (Hochreiter and Schmidhuber, 1997) or `gru` (Cho et
            al., 2014).
        units: Of the layers, in order.
        unroll: Whether the steps are laid out in the graph. As a loop the network trains and builds
            faster, but its file cannot be int8.
        dropout: Rate before the logits.

    Returns:
        A model from float32 (batch, *shape) to logits (batch, classes).

    Raises:
        ArchError: When a sample is not a sequence or has no unit to be computed with.
    """
    if len(shape) not in {2, 3}:
        raise ArchError(
            "rnn needs sequences of shape (steps, features) or images of shape (height, width, "
            f"channels). Received: shape={shape}. Use arch=mlp for vectors"
        )
    if not units:
        raise ArchError("arch.units must name at least one layer. Received: []")
    inputs = keras.Input(shape, name="input")
    x = inputs
    if len(shape) == 3:
        x = keras.layers.Reshape((shape[0], shape[1] * shape[2]), name="rows")(x)
    for i, count in enumerate(units, start=1):
        x = _LAYERS[cell](
            count, return_sequences=i < len(units), unroll=unroll, name=f"{cell}_{i}"
        )(x)
    x = blocks.drop(x, dropout, name="dropout")
    return keras.Model(inputs, blocks.logits(x, classes), name="rnn")
