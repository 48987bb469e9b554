"""The weights of a network that carry its arithmetic, and keeping their zeros."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.contracts import Keep, Modifier


def kernels(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns path -> variable of every trainable weight of rank 2 or more, in the model's order.

    Biases and the scales of normalization are of rank 1: they cost little and are left alone.
    """
    return {v.path: v for v in model.trainable_variables if len(v.shape) >= 2}


def sparsity_of(variables: list[keras.Variable]) -> float:
    """Returns the fraction of exact zeros over all `variables`."""
    zeros = sum(int(np.count_nonzero(v.numpy() == 0)) for v in variables)
    return zeros / max(1, sum(v.numpy().size for v in variables))


def keep_zeros(paths: list[str]) -> Keep:
    """Returns what keeps the present zeros of the weights at `paths` through later training.

    A weight that a later rewrite has renamed or removed is no longer held.
    """

    def modifier(model: keras.Model) -> Modifier:
        found = kernels(model)
        held = [found[path] for path in paths if path in found]
        masks = [tf.Variable(tf.cast(v.value != 0, v.dtype), trainable=False) for v in held]

        def constrain() -> None:
            for variable, mask in zip(held, masks, strict=True):
                variable.assign(variable * mask)

        return Modifier("keep zeros", constrain=constrain)

    return modifier
