"""Gradients of the task loss: what importances that ask the data are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

Batches = Iterable[tuple[np.ndarray, np.ndarray]]
"""(x, y): x float32 (batch, *shape), normalized; y int (batch,), the classes."""


def task_loss(model: keras.Model, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns the loss that scores are about: mean softmax cross-entropy of the logits (nats).

    Of a network with early exits it is the mean over the exits: a channel that only one of them
    needs matters too. The model computes as at inference: with the moving statistics, without
    dropout. Labels are plain, whatever the training does to them.
    """
    outputs = tf.nest.flatten(model(x, training=False))
    losses = [
        tf.nn.sparse_softmax_cross_entropy_with_logits(y, tf.cast(logits, tf.float32))
        for logits in outputs
    ]
    return tf.reduce_mean(tf.stack(losses))


def loss_gradients(
    model: keras.Model, weights: Sequence[keras.Variable]
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
                loss = task_loss(model, x, y)
        found = tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(gradient) for gradient in found]  # Embeddings' are sparse.

    def gradients(batches: Batches) -> Iterator[list[np.ndarray]]:
        for x, y in batches:
            yield [gradient.numpy() for gradient in of_batch(x, y)]

    return gradients
