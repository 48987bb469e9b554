"""Weights that a training leaves as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import keras

from netopt_cli.graph.rebuild import layers


@contextmanager
def trained_alone(
    model: keras.Model, weights: Collection[keras.Variable], *, adapt_batch_norm: bool
) -> Iterator[None]:
    """Within it only `weights` of a model are trained.

    Args:
        adapt_batch_norm: Whether a BatchNorm without a trained weight goes on normalizing by its
            batches and moving its statistics, as it does in training (Li et al., 2016, AdaBN); if
            not, it uses those it has.
    """
    trained = {id(weight) for weight in weights}
    frozen = [v for v in model.trainable_variables if id(v) not in trained]
    held = [
        layer
        for layer in layers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
        and not adapt_batch_norm
        and not any(id(v) in trained for v in layer.trainable_variables)
    ]
    flags = [(v, v.trainable) for layer in held for v in layer.variables]
    for layer in held:
        layer.trainable = False
    for variable in frozen:
        variable.trainable = False
    try:
        yield
    finally:
        for layer in held:
            layer.trainable = True
        for variable, flag in flags:
            variable.trainable = flag
        for variable in frozen:
            variable.trainable = True
