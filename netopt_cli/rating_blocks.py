"""What networks over users and items have in common: the fields of a sample, and their vectors.

A network gives a score for every item at once: the last layer has an output for each.
"""

from __future__ import annotations

import keras

from netopt_cli import token_blocks
from netopt_cli.errors import ArchError
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


def history_field(inputs: Inputs) -> Field | None:
    """The field of the items that the user has seen, if there is one."""
    return next((field for field in inputs.fields if field.kind == "tokens"), None)


def require_history(inputs: Inputs, arch: str) -> Field:
    """Raises:
    ArchError: A sample has none.
    """
    require_user(inputs, arch)
    field = history_field(inputs)
    if field is None:
        raise ArchError(
            f"{arch} reads the items that a user has seen. Received: samples of "
            f"{inputs.describe()}. Let data.history be more than 0"
        )
    return field


def vector(ids: keras.KerasTensor, field: Field, width: int, name: str) -> keras.KerasTensor:
    """Ids (batch, 1) -> (batch, width)."""
    x = token_blocks.embedded(ids, field.vocabulary, width, name=name)
    return keras.layers.Flatten(name=f"{name}_vector")(x)
