"""New weights for a network that stays as it is otherwise."""

from __future__ import annotations

import keras

from netopt_cli.graph.rebuild import as_functional, plain_copy


def reinitialize(model: keras.Model, seed: int) -> None:
    """Gives every trainable weight the value that its layer's initializer draws with `seed`.

    Statistics, and layers that are frozen, stay as they are.

    Args:
        model: Functional or built Sequential, nested models included; changed in place.

    Raises:
        ArchError: The model is subclassed, or a layer has no configuration to be built anew from.
    """
    graph = as_functional(model)
    keras.utils.set_random_seed(seed)
    anew = keras.models.clone_model(graph, clone_function=plain_copy)
    for weight, new in zip(graph.weights, anew.weights, strict=True):
        if weight.trainable:
            weight.assign(new.numpy())
