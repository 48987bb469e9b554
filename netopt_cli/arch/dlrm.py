"""The deep learning recommendation model (Naumov et al., 2019, arXiv:1906.00091)."""

from itertools import combinations
from typing import Annotated

import keras
from pydantic import Field

from netopt_cli import blocks, rating_blocks
from netopt_cli.inputs import VALUES, Inputs


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    inputs: Inputs = VALUES,
    width: blocks.Count = 64,
    hidden: Annotated[blocks.Counts, Field(min_length=1)] = (64, 32),
    activation: blocks.Activation = "relu",
    token_dropout: blocks.Rate = 0.3,
    dropout: blocks.Rate = 0.2,
) -> keras.Model:
    """Builds a vector for each field of the user and for the item, their products by pairs, and
    dense layers over the products, for every item.

    Args:
        shape: (values,).
        classes: Number of items.
        inputs: Of a user: the number, categories, numbers, and a history, which is a category of
            many values.
        width: Of the vectors.
        hidden: Units of the dense layers, in order.
        activation: Of the dense layers.
        token_dropout: Rate at which items of the history are left out in training.
        dropout: Rate after each dense layer.

    Returns:
        A model from int32 (batch, values) to scores (batch, items).

    Raises:
        ArchError: When a sample is not a user.
    """
    rating_blocks.require_user(inputs, "dlrm")
    source = keras.Input(shape, dtype="int32", name="input")
    fields = rating_blocks.vectors(source, inputs, width, token_dropout)
    item = rating_blocks.all_items(source, classes, width)[0]  # (items, width)
    with_item = [keras.ops.matmul(one, keras.ops.transpose(item)) for one in fields]
    x = keras.ops.stack(with_item, axis=-1)  # (batch, items, fields)
    first, *others = hidden
    x = keras.layers.Dense(first, name="dense_1")(x)
    # Products among the fields of a user, and numbers, are the same for all items, and so is what
    # the first layer makes of them.
    of_user = [keras.layers.Dot(1)(pair) for pair in combinations(fields, 2)]
    numbers = zip(inputs.fields, fields, strict=True)
    of_user += [one for field, one in numbers if field.kind == "values"]
    if of_user:
        same = keras.layers.Concatenate(name="of_user")(of_user) if of_user[1:] else of_user[0]
        same = keras.layers.Dense(first, use_bias=False, name="dense_1_user")(same)
        same = keras.layers.Reshape((1, first), name="of_user_row")(same)
        x = keras.layers.Add(name="dense_1_both")([x, same])
    x = blocks.activate(x, activation, name="dense_1")
    x = blocks.drop(x, dropout, name="dense_1_dropout")
    for i, units in enumerate(others, start=2):
        x = blocks.dense_unit(x, units, name=f"dense_{i}", activation=activation, dropout=dropout)
    scores = keras.layers.Dense(1, use_bias=False, name="score")(x)
    scores = keras.layers.Reshape((classes,), name="scores")(scores)
    scores = rating_blocks.with_item_bias(scores, source, classes)
    return keras.Model(source, scores, name="dlrm")
