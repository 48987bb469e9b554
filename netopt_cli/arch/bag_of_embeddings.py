"""The mean of the embeddings of a text, as in fastText (Joulin et al., 2017, arXiv:1607.01759)."""

from typing import Literal

import keras

from netopt_cli import blocks, token_blocks
from netopt_cli.inputs import VALUES, Inputs


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    inputs: Inputs = VALUES,
    width: blocks.Count = 32,
    pooling: Literal["mean", "root"] = "mean",
    hidden: blocks.Counts = (),
    activation: blocks.Activation = "relu",
    token_dropout: blocks.Rate = 0.0,
    dropout: blocks.Rate = 0.0,
) -> keras.Model:
    """Builds an embedding, its mean over the text, and dense layers. With `data.text.word_ngrams`
    the order of words counts too; words and n-grams have a mean each.

    Args:
        shape: (length,).
        classes: Number of logits.
        inputs: Of a text.
        width: Of the embedding.
        pooling: `mean` of the tokens, or their sum divided by the `root` of their number.
        hidden: Units of dense layers before the logits, in order.
        token_dropout: Rate at which tokens are left out in training.
        dropout: Rate before each dense layer.

    Returns:
        A model from tokens, int32 (batch, length), to logits (batch, classes).

    Raises:
        ArchError: When a sample is not a text.
    """
    field = token_blocks.text_field(inputs, "bag_of_embeddings", in_order=False)
    tokens = keras.Input(shape, dtype="int32", name="input")
    weights = token_blocks.present(tokens)
    weights = blocks.drop(weights, token_dropout, name="token_dropout")
    x = token_blocks.embedded(tokens, field.vocabulary, width)
    pool = token_blocks.mean_of_present if pooling == "mean" else token_blocks.sum_by_root
    if field.ngrams_from:
        # n-grams are many: in one mean with the words they would drown them.
        is_ngram = keras.ops.greater_equal(tokens, field.ngrams_from)
        ngrams = keras.ops.expand_dims(keras.ops.cast(is_ngram, "float32"), -1)
        pooled = [pool(x, weights * (1.0 - ngrams)), pool(x, weights * ngrams)]
        x = keras.layers.Concatenate(name="words_and_ngrams")(pooled)
    else:
        x = pool(x, weights)
    for i, units in enumerate(hidden, start=1):
        x = blocks.drop(x, dropout, name=f"dropout_{i}")
        x = blocks.dense_unit(x, units, name=f"dense_{i}", activation=activation)
    x = blocks.drop(x, dropout, name="dropout")
    return keras.Model(tokens, blocks.logits(x, classes), name="bag_of_embeddings")
