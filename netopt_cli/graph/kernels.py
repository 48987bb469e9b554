"""The weights of a network that carry its arithmetic, and keeping their zeros."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.contracts import Keep, Modifier

_NO_KERNELS = ("bias", "gamma", "beta", "alpha")


def kernels(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns path -> variable of every trainable weight that multiplies, in the model's order.

    Those are the weights of rank 2 or more; biases and the parameters of normalizations and of
    activations cost little and are left alone. Layers of the same name in two nested models have
    the same path: the later ones get `#2`, `#3`, …
    """
    found: dict[str, keras.Variable] = {}
    for variable in model.trainable_variables:
        if len(variable.shape) < 2 or variable.name in _NO_KERNELS:
            continue
        same = sum(path.partition("#")[0] == variable.path for path in found)
        found[f"{variable.path}#{same + 1}" if same else variable.path] = variable
    return found


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
