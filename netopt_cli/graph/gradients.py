"""Gradients of the task loss: what importances that ask the data are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.tasks import Task

Batches = Iterable[tuple[np.ndarray, np.ndarray]]
"""(x, y): x (batch, *shape), normalized; y (batch, …), labels as the task keeps them."""


def task_loss(task: Task, model: keras.Model, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns the loss that scores are about: the mean of that of the task.

    Of a network with early exits it is the mean over the exits: a channel that only one of them
    needs matters too. The model computes as at inference: with the moving statistics, without
    dropout. Labels are plain, whatever the training does to them.
    """
    outputs = tf.nest.flatten(model(x, training=False))
    targets = task.targets(x, y, outputs[-1].shape[-1])
    losses = [task.losses(targets, tf.cast(each, tf.float32)) for each in outputs]
    return tf.reduce_mean(tf.stack(losses))


def loss_gradients(
    task: Task, model: keras.Model, weights: Sequence[keras.Variable]
) -> Callable[[Batches], Iterator[list[np.ndarray]]]:
    """Returns what yields, for each batch, the gradients of its `task_loss` by the `weights`.

    It can be called again after the weights have changed; it is compiled once. The gradient by a
    weight that the loss does not depend on is zero.

    Args:
        weights: Of the model; float arrays of their shapes are yielded, in their order.
    """

    @tf.function(reduce_retracing=True)
    def of_batch(x: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
        # Tensors in place of the variables: a tape sees through them under any strategy.
        values = [tf.convert_to_tensor(weight.value) for weight in weights]
        with tf.GradientTape() as tape:
            tape.watch(values)
            with keras.StatelessScope(state_mapping=list(zip(weights, values, strict=True))):
                loss = task_loss(task, model, x, y)
        found = tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(gradient) for gradient in found]  # Embeddings' are sparse.

    def gradients(batches: Batches) -> Iterator[list[np.ndarray]]:
        for x, y in batches:
            yield [gradient.numpy() for gradient in of_batch(x, y)]

    return gradients
