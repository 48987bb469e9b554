"""Convolutions over a text and their maxima (Kim, 2014, arXiv:1408.5882)."""

import keras

from netopt_cli import blocks, token_blocks
from netopt_cli.inputs import VALUES, Inputs


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    inputs: Inputs = VALUES,
    width: blocks.Count = 64,
    filters: blocks.Count = 64,
    kernel_sizes: blocks.Counts = (3, 4, 5),
    embedding_dropout: blocks.Rate = 0.0,
    dropout: blocks.Rate = 0.5,
) -> keras.Model:
    """Builds convolutions of several widths beside one another, the maximum of each filter over the
    text, and the logits.

    Args:
        shape: (length,).
        classes: Number of logits.
        inputs: Of a text.
        width: Of the embedding.
        filters: Of each convolution.
        kernel_sizes: Tokens that the convolutions see, one each.
        embedding_dropout: Rate at which whole tokens are left out in training.
        dropout: Rate before the logits.

    Returns:
        A model from tokens, int32 (batch, length), to logits (batch, classes).

    Raises:
        ArchError: When a sample is not a text.
    """
    field = token_blocks.text_field(inputs, "text_cnn")
    tokens = keras.Input(shape, dtype="int32", name="input")
    weights = token_blocks.present(tokens)
    x = token_blocks.embedded(tokens, field.vocabulary, width)
    if embedding_dropout:
        kept = blocks.drop(weights, embedding_dropout, name="embedding_dropout")
        x = keras.layers.Multiply(name="tokens_left")([x, kept])
    found = []
    for size in kernel_sizes:
        convolved = keras.layers.Conv1D(
            filters, size, padding="same", activation="relu", name=f"conv_{size}"
        )(x)
        found.append(token_blocks.max_of_present(convolved, weights))
    x = keras.layers.Concatenate(name="maxima")(found) if len(found) > 1 else found[0]
    x = blocks.drop(x, dropout, name="dropout")
    return keras.Model(tokens, blocks.logits(x, classes), name="text_cnn")
