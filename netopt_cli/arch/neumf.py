"""Neural matrix factorization (He et al., 2017, arXiv:1708.05031)."""

import keras

from netopt_cli import blocks, rating_blocks, token_blocks
from netopt_cli.inputs import VALUES, Inputs


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    inputs: Inputs = VALUES,
    width: blocks.Count = 32,
    hidden: blocks.Counts = (64, 32, 16),
    activation: blocks.Activation = "relu",
    dropout: blocks.Rate = 0.2,
) -> keras.Model:
    """Builds the two parts, each with vectors of its own: the product of those of user and item,
    value by value, and dense layers over both of them; a dense layer over what they say is the
    score. All of it for every item: a pass costs as many times what a pair does.

    Args:
        shape: (values,).
        classes: Number of items.
        inputs: Of a user; all but the user's number is left alone.
        width: Of the vectors of the product.
        hidden: Units of the dense layers, in order; the vectors that they read have half as many
            values as the first of them.
        activation: Of the dense layers.
        dropout: Rate after each of them, and on the product.

    Returns:
        A model from int32 (batch, values) to scores (batch, items).

    Raises:
        ArchError: When a sample is not a user.
    """
    field = rating_blocks.require_user(inputs, "neumf")
    source = keras.Input(shape, dtype="int32", name="input")
    ids = inputs.parts(source)[field.name]

    user = token_blocks.embedded(ids, field.vocabulary, width, name="user")  # (batch, 1, width)
    item = rating_blocks.all_items(source, classes, width)  # (1, items, width)
    product = user * item  # by no layer: `Multiply` would say that there is one sample
    product = blocks.drop(product, dropout, name="product_dropout")

    said = [product]
    if hidden:
        # The first layer over both, as one for each: that for items is the same for all users.
        first, *others = hidden
        half = max(1, first // 2)
        user = token_blocks.embedded(ids, field.vocabulary, half, name="user_mlp")
        item = rating_blocks.all_items(source, classes, half, name="item_mlp")
        user = keras.layers.Dense(first, name="mlp_1_user")(user)
        item = keras.layers.Dense(first, use_bias=False, name="mlp_1_item")(item)
        x = user + item  # (batch, items, first)
        x = blocks.activate(x, activation, name="mlp_1")
        x = blocks.drop(x, dropout, name="mlp_1_dropout")
        for i, units in enumerate(others, start=2):
            x = blocks.dense_unit(x, units, name=f"mlp_{i}", activation=activation, dropout=dropout)
        said.append(x)
    x = keras.layers.Concatenate(name="both")(said) if len(said) > 1 else product
    scores = keras.layers.Dense(1, use_bias=False, name="score")(x)
    scores = keras.layers.Reshape((classes,), name="scores")(scores)
    scores = rating_blocks.with_item_bias(scores, source, classes)
    return keras.Model(source, scores, name="neumf")
