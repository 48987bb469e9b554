"""An autoencoder of what a user has seen, as Mult-DAE (Liang et al., 2018, arXiv:1802.05814)."""

import keras

from netopt_cli import blocks, rating_blocks
from netopt_cli.inputs import VALUES, Inputs


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    inputs: Inputs = VALUES,
    width: blocks.Count = 200,
    hidden: blocks.Counts = (),
    activation: blocks.Activation = "tanh",
    token_dropout: blocks.Rate = 0.5,
    dropout: blocks.Rate = 0.0,
    user: bool = False,
) -> keras.Model:
    """Builds the sum of the vectors of the items that a user has seen, over the square root of
    their number, dense layers, and a score for each item. A user who was not there in training has
    scores all the same.

    Args:
        shape: (values,).
        classes: Number of items.
        inputs: Of a user with a history.
        width: Of the vectors.
        hidden: Units of dense layers after the sum, in order.
        activation: Of the sum and of these layers.
        token_dropout: Rate at which items of the history are left out in training: what makes the
            network say more than what it was told.
        dropout: Rate before each dense layer and the scores.
        user: Whether the user has a vector too, which is added to the sum, as in SVD++ (Koren,
            2008).

    Returns:
        A model from int32 (batch, values) to scores (batch, items).

    Raises:
        ArchError: When a sample has no history.
    """
    field = rating_blocks.require_history(inputs, "history_autoencoder")
    source = keras.Input(shape, dtype="int32", name="input")
    parts = inputs.parts(source)
    x = rating_blocks.history_vector(parts[field.name], field, width, token_dropout)
    if user:
        who = rating_blocks.require_user(inputs, "history_autoencoder")
        own = rating_blocks.vector(parts[who.name], who, width, "user")
        x = keras.layers.Add(name="user_added")([x, own])
    x = blocks.activate(x, activation, name="history")
    for i, units in enumerate(hidden, start=1):
        x = blocks.drop(x, dropout, name=f"dropout_{i}")
        x = blocks.dense_unit(x, units, name=f"dense_{i}", activation=activation)
    x = blocks.drop(x, dropout, name="dropout")
    return keras.Model(source, blocks.logits(x, classes), name="history_autoencoder")
