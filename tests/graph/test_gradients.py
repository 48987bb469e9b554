"""Gradients of the task loss for scoring."""

import keras
import numpy as np

from netopt_cli.graph.gradients import loss_gradients, task_loss
from netopt_cli.task.classification import CLASSIFICATION


def network() -> keras.Model:
    inputs = keras.Input((4,))
    x = keras.layers.Dense(6, activation="relu", name="dense")(inputs)
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def batch(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(size=(size, 4)).astype(np.float32), random.integers(0, 3, size)


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    model = network()
    kernel = model.get_layer("dense").kernel
    x, y = batch(16, 0)
    ((gradient,),) = loss_gradients(CLASSIFICATION, model, [kernel])([(x, y)])
    start, step = kernel.numpy(), np.float32(1e-2)
    for position in ((0, 0), (3, 5)):
        losses = []
        for sign in (1, -1):
            moved = start.copy()
            moved[position] += sign * step
            kernel.assign(moved)
            losses.append(float(task_loss(CLASSIFICATION, model, x, y)))
        kernel.assign(start)
        slope = (losses[0] - losses[1]) / (2 * step)
        np.testing.assert_allclose(gradient[position], slope, rtol=0.02, atol=1e-4)


def test_it_follows_the_weights_and_yields_each_batch_alone() -> None:
    model = network()
    kernels = [model.get_layer("dense").kernel, model.get_layer("logits").kernel]
    gradients = loss_gradients(CLASSIFICATION, model, kernels)
    first = list(gradients([batch(16, 0), batch(9, 1)]))
    assert [[g.shape for g in found] for found in first] == [[(4, 6), (6, 3)]] * 2
    assert not np.allclose(first[0][0], first[1][0])
    kernels[1].assign(np.zeros((6, 3)))
    (after,) = gradients([batch(16, 0)])
    assert not after[0].any() and after[1].any()


def test_frozen_unused_and_embedded_weights_have_gradients_too() -> None:
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(7, 3, name="embedding")(inputs)
    unused = keras.layers.Dense(2, name="unused")
    unused.build((None, 5))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    model.trainable = False
    table = model.get_layer("embedding").embeddings
    x = np.array([[0, 1, 1, 2]] * 5)
    ((rows, none),) = loss_gradients(CLASSIFICATION, model, [table, unused.kernel])(
        [(x, np.array([0, 1, 2, 0, 1]))]
    )
    assert rows[:3].all() and not rows[3:].any()
    assert none.shape == (5, 2) and not none.any()
