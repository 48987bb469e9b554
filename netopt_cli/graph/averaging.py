"""Averages of the weights along the training, which are validated and kept in their place."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from netopt_cli.contracts import Modifier


def moving_average(model: keras.Model, decay: float) -> Modifier:
    """Keeps the exponential moving average of the weights (Polyak and Juditsky, 1992).

    After step t, from 1 on, average = d · average + (1 - d) · weight, where d is
    min(decay, (1 + t) / (10 + t)): a short training does not remember its start.
    """
    step = tf.Variable(0.0, trainable=False)

    def share_of_new(count: tf.Tensor) -> tf.Tensor:
        return 1.0 - tf.minimum(decay, (1.0 + count) / (10.0 + count))

    return _averaging("EMA", model, step, share_of_new)


def stochastic_average(model: keras.Model, start: float) -> Modifier:
    """Keeps the plain mean of the weights after each step from a fraction of the training on
    (SWA: Izmailov et al., 2018). Statistics of BatchNorm are averaged too, and want an estimate
    anew in the end (`graph.batch_norm.recalibrate`)."""
    step = tf.Variable(0.0, trainable=False)
    first = tf.Variable(0.0, trainable=False)

    def tell(done: int, total_steps: int) -> None:
        first.assign(start * total_steps)

    def share_of_new(count: tf.Tensor) -> tf.Tensor:
        return 1.0 / tf.maximum(1.0, count - first)

    return _averaging("SWA", model, step, share_of_new, before_steps=tell, settles_at=1.0)


def _averaging(
    name: str,
    model: keras.Model,
    step: tf.Variable,
    share_of_new: Callable[[tf.Tensor], tf.Tensor],
    *,
    before_steps: Callable[[int, int], None] | None = None,
    settles_at: float = 0.0,
) -> Modifier:
    """Moves averages towards the weights by a share at each step; `share_of_new` takes the number
    of steps done."""
    pairs = tuple(
        (weight, keras.Variable(weight.numpy(), trainable=False, name=f"{weight.name}_average"))
        for weight in model.weights
        if weight.dtype == "float32" and len(weight.shape)
    )

    def follow() -> None:
        step.assign_add(1.0)
        share = share_of_new(step)
        for weight, average in pairs:
            average.assign(average.value + share * (weight.value - average.value))

    return Modifier(
        name, constrain=follow, averages=pairs, before_steps=before_steps, settles_at=settles_at
    )
