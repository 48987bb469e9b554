"""Two towers: a network for users, one for items, and the product of what they say (Covington et
al., 2016; Yi et al., 2019)."""

import keras

from netopt_cli import blocks, rating_blocks
from netopt_cli.inputs import VALUES, Inputs


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    inputs: Inputs = VALUES,
    embedding: blocks.Count = 64,
    user_hidden: blocks.Counts = (128,),
    item_hidden: blocks.Counts = (128,),
    width: blocks.Count = 64,
    activation: blocks.Activation = "relu",
    token_dropout: blocks.Rate = 0.3,
    dropout: blocks.Rate = 0.2,
) -> keras.Model:
    """Builds dense layers over all that is known of a user, dense layers over the vector of each
    item, and their products. What the tower of items says does not depend on the user: a file that
    is asked often keeps it.

    Args:
        shape: (values,).
        classes: Number of items.
        inputs: Of a user.
        embedding: Width of the vectors of each field, and of the items.
        user_hidden, item_hidden: Units of the dense layers of each tower, in order.
        width: Of what the towers say.
        activation: Of the dense layers.
        token_dropout: Rate at which items of the history are left out in training.
        dropout: Rate after each dense layer.

    Returns:
        A model from int32 (batch, values) to scores (batch, items).

    Raises:
        ArchError: When a sample is not a user.
    """
    rating_blocks.require_user(inputs, "two_tower")
    source = keras.Input(shape, dtype="int32", name="input")
    known = rating_blocks.vectors(source, inputs, embedding, token_dropout)
    user = keras.layers.Concatenate(name="user_known")(known) if len(known) > 1 else known[0]
    for i, units in enumerate(user_hidden, start=1):
        user = blocks.dense_unit(
            user, units, name=f"user_{i}", activation=activation, dropout=dropout
        )
    user = keras.layers.Dense(width, use_bias=False, name="user_tower")(user)
    item = rating_blocks.all_items(source, classes, embedding)
    for i, units in enumerate(item_hidden, start=1):
        item = blocks.dense_unit(
            item, units, name=f"item_{i}", activation=activation, dropout=dropout
        )
    item = keras.layers.Dense(width, use_bias=False, name="item_tower")(item)
    scores = keras.ops.matmul(user, keras.ops.transpose(item[0]))
    scores = rating_blocks.with_item_bias(scores, source, classes)
    return keras.Model(source, scores, name="two_tower")
