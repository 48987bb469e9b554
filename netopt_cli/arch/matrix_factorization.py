"""Matrix factorization (Koren et al., 2009): a vector for each user and each item."""

import keras

from netopt_cli import blocks, rating_blocks
from netopt_cli.inputs import VALUES, Inputs


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    inputs: Inputs = VALUES,
    width: blocks.Count = 64,
    dropout: blocks.Rate = 0.0,
) -> keras.Model:
    """Builds the product of the user's vector with those of all items, and a bias for each item.

    Args:
        shape: (values,).
        classes: Number of items.
        inputs: Of a user; all but the user's number is left alone.
        width: Of the vectors.
        dropout: Rate on the user's vector.

    Returns:
        A model from int32 (batch, values) to scores (batch, items).

    Raises:
        ArchError: When a sample is not a user.
    """
    field = rating_blocks.require_user(inputs, "matrix_factorization")
    source = keras.Input(shape, dtype="int32", name="input")
    x = rating_blocks.vector(inputs.parts(source)[field.name], field, width, "user")
    x = blocks.drop(x, dropout, name="dropout")
    return keras.Model(source, blocks.logits(x, classes), name="matrix_factorization")
