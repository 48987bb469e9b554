"""What networks over users and items have in common: the fields of a sample, and their vectors.

A network gives a score for every item at once: its last layer has an output for each, or it works
on the vectors of all items along an axis of their own.
"""

from __future__ import annotations

import keras

from netopt_cli import blocks, token_blocks
from netopt_cli.errors import ArchError
from netopt_cli.graph.all_ids import AllIds
from netopt_cli.inputs import Field, Inputs


def require_user(inputs: Inputs, arch: str) -> Field:
    """The field of the user, which every sample of ratings has.

    Raises:
        ArchError: A sample has none.
    """
    for field in inputs.fields:
        if field.name == "user" and field.kind == "ids":
            return field
    raise ArchError(
        f"{arch} needs samples of users. Received: samples of {inputs.describe()}. Use data=ratings"
    )


def require_history(inputs: Inputs, arch: str) -> Field:
    """The field of the items that a user has seen.

    Raises:
        ArchError: A sample has none.
    """
    require_user(inputs, arch)
    for field in inputs.fields:
        if field.kind == "tokens":
            return field
    raise ArchError(
        f"{arch} reads the items that a user has seen. Received: samples of {inputs.describe()}. "
        "Let data.history be more than 0"
    )


def vector(ids: keras.KerasTensor, field: Field, width: int, name: str) -> keras.KerasTensor:
    """Ids (batch, 1) -> (batch, width)."""
    x = token_blocks.embedded(ids, field.vocabulary, width, name=name)
    return keras.layers.Flatten(name=f"{name}_vector")(x)


def history_vector(
    tokens: keras.KerasTensor, field: Field, width: int, token_dropout: float
) -> keras.KerasTensor:
    """Tokens (batch, length) -> (batch, width): the sum of the vectors of the items, over the
    square root of their number, so that its length hardly depends on it; 0 without any.

    Args:
        token_dropout: Rate at which items are left out in training.
    """
    present = token_blocks.present(tokens)
    count = keras.ops.maximum(keras.ops.sum(present, axis=1), 1.0)
    kept = blocks.drop(present, token_dropout, name="history_dropout")
    x = token_blocks.embedded(tokens, field.vocabulary, width, name="history")
    total = keras.ops.sum(keras.layers.Multiply(name="history_kept")([x, kept]), axis=1)
    return total / keras.ops.sqrt(count)


def vectors(
    source: keras.KerasTensor, inputs: Inputs, width: int, token_dropout: float = 0.0
) -> list[keras.KerasTensor]:
    """All that is known of a user, each field as (batch, width); values through a dense layer.

    Args:
        source: int32 (batch, values).
        token_dropout: Rate at which items of the history are left out in training.
    """
    parts, found = inputs.parts(source), []
    for field in inputs.fields:
        part = parts[field.name]
        if field.kind == "ids":
            found.append(vector(part, field, width, field.name))
        elif field.kind == "tokens":
            found.append(history_vector(part, field, width, token_dropout))
        else:
            found.append(blocks.dense_unit(part, width, name=field.name))
    return found


def all_items(
    source: keras.KerasTensor, items: int, width: int, name: str = "item"
) -> keras.KerasTensor:
    """The vectors of all items, (1, items, width): the same for all samples."""
    ids = AllIds(items, name=f"{name}_ids")(source)
    return token_blocks.embedded(ids, items, width, name=name)


def with_item_bias(
    scores: keras.KerasTensor, source: keras.KerasTensor, items: int
) -> keras.KerasTensor:
    """Adds to the scores (batch, items) what each item has whoever is asked, in float32."""
    ids = AllIds(items, name="item_bias_ids")(source)
    bias = keras.layers.Embedding(items, 1, embeddings_initializer="zeros", name="item_bias")(ids)
    # Not by a layer: `Add` would say that there is one sample, since there is one row of biases.
    return keras.ops.cast(scores, "float32") + keras.ops.cast(bias[..., 0], "float32")
