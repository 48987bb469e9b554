"""What networks over tokens have in common: their input, embeddings, and means over a text.

Keras' masks are not used: a file has none. What must not count padding multiplies by `present`.
"""

from __future__ import annotations

import keras

from netopt_cli.errors import ArchError
from netopt_cli.inputs import PADDING, Field, Inputs


def text_field(inputs: Inputs, arch: str, *, in_order: bool = True) -> Field:
    """The field of a text.

    Args:
        in_order: Whether the order of the tokens matters to the arch.

    Raises:
        ArchError: A sample is something else, or has tokens without a place in the order.
    """
    if not inputs.is_text:
        raise ArchError(
            f"{arch} needs texts. Received: samples of {inputs.describe()}. Use data=text_csv, "
            "imdb or reuters, or another arch"
        )
    (field,) = inputs.fields
    if in_order and field.ngrams_from:
        raise ArchError(
            f"{arch} reads tokens in their order, which n-grams have none of: leave "
            "data.text.word_ngrams and character_ngrams out, or use arch=bag_of_embeddings"
        )
    return field


def embedded(
    tokens: keras.KerasTensor, vocabulary: int, width: int, name: str = "embedding"
) -> keras.KerasTensor:
    """Tokens (batch, length) -> float32 (batch, length, width).

    Vectors begin as N(0, 1 / width), of which a mean over a text neither vanishes nor saturates.
    """
    begin = keras.initializers.RandomNormal(stddev=width**-0.5)
    return keras.layers.Embedding(vocabulary, width, embeddings_initializer=begin, name=name)(
        tokens
    )


def present(tokens: keras.KerasTensor) -> keras.KerasTensor:
    """float32 (batch, length, 1): 1 where there is a token, 0 where there is padding."""
    is_token = keras.ops.cast(keras.ops.not_equal(tokens, PADDING), "float32")
    return keras.ops.expand_dims(is_token, -1)


def mean_of_present(x: keras.KerasTensor, weights: keras.KerasTensor) -> keras.KerasTensor:
    """(batch, length, width), (batch, length, 1) -> (batch, width): the mean over the tokens; 0 of
    an empty text."""
    total = keras.ops.sum(keras.layers.Multiply()([x, weights]), axis=1)
    return total / keras.ops.maximum(keras.ops.sum(weights, axis=1), 1.0)


def sum_by_root(x: keras.KerasTensor, weights: keras.KerasTensor) -> keras.KerasTensor:
    """Likewise the sum divided by the square root of the number of tokens: as long as the mean of
    independent vectors is short, so that more tokens say it louder."""
    total = keras.ops.sum(keras.layers.Multiply()([x, weights]), axis=1)
    return total / keras.ops.sqrt(keras.ops.maximum(keras.ops.sum(weights, axis=1), 1.0))


def max_of_present(x: keras.KerasTensor, weights: keras.KerasTensor) -> keras.KerasTensor:
    """Likewise the maximum, of values that are not negative."""
    return keras.ops.max(keras.layers.Multiply()([x, weights]), axis=1)
