"""Recurrent network over a text, the steps of a sequence, or the rows of an image."""

from typing import Literal

import keras

from netopt_cli import blocks, token_blocks
from netopt_cli.errors import ArchError
from netopt_cli.inputs import VALUES, Inputs

_LAYERS = {
    "simple": keras.layers.SimpleRNN,
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
}


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    inputs: Inputs = VALUES,
    cell: Literal["simple", "lstm", "gru"] = "lstm",
    units: blocks.Counts = (64,),
    bidirectional: bool = False,
    width: blocks.Count = 64,
    unroll: bool = True,
    token_dropout: blocks.Rate = 0.0,
    dropout: blocks.Rate = 0.0,
    per_step: bool = False,
) -> keras.Model:
    """Builds recurrent layers, the logits from the last step, of a text from the mean over its
    tokens, or from every step: 24,458 parameters at 28x28x1 and 10 classes.

    Args:
        shape: (length,) of tokens; (steps, features); or (height, width, channels), of which each
            row is a step.
        classes: Number of logits.
        inputs: What a sample is.
        cell: `simple` (Elman, 1990), `lstm` (Hochreiter and Schmidhuber, 1997) or `gru` (Cho et
            al., 2014).
        units: Of the layers, in order.
        bidirectional: Whether a second layer beside each one goes from the end to the beginning.
        width: Of the embedding of tokens.
        unroll: Whether the steps are laid out in the graph. As a loop the network trains and builds
            faster, but its file cannot be int8.
        token_dropout: Rate at which tokens are left out in training.
        dropout: Rate before the logits, and of the embedding of tokens.
        per_step: Whether every step has logits of its own, as task=tagging needs.

    Returns:
        A model from float32 (batch, *shape), or tokens, int32 (batch, length), to logits (batch,
        classes), or (batch, steps, classes).

    Raises:
        ArchError: When a sample is not a sequence or has no unit to be computed with.
    """
    if not units:
        raise ArchError("arch.units must name at least one layer. Received: []")
    source, x, weights = _sequence(shape, inputs, width, token_dropout, dropout)
    for i, count in enumerate(units, start=1):
        layer = _LAYERS[cell](
            count,
            return_sequences=i < len(units) or weights is not None or per_step,
            unroll=unroll,
            name=f"{cell}_{i}",
        )
        x = (keras.layers.Bidirectional(layer, name=f"both_{i}") if bidirectional else layer)(x)
    if weights is not None and not per_step:
        x = token_blocks.mean_of_present(x, weights)
    x = blocks.drop(x, dropout, name="dropout")
    return keras.Model(source, blocks.logits(x, classes), name="rnn")


def _sequence(
    shape: tuple[int, ...], inputs: Inputs, width: int, token_dropout: float, dropout: float
) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor | None]:
    """The input, the sequence (batch, steps, features), and of a text where there are tokens."""
    if not inputs.are_values:
        field = token_blocks.text_field(inputs, "rnn")
        tokens = keras.Input(shape, dtype="int32", name="input")
        weights = token_blocks.present(tokens)
        x = token_blocks.embedded(tokens, field.vocabulary, width)
        if token_dropout:
            kept = blocks.drop(weights, token_dropout, name="token_dropout")
            x = keras.layers.Multiply(name="tokens_left")([x, kept])
        return tokens, blocks.drop(x, dropout, name="embedding_dropout"), weights
    blocks.require_series(shape, arch="rnn", also="texts, ")
    source = keras.Input(shape, name="input")
    x = blocks.rows_as_steps(source)
    return source, x, None
