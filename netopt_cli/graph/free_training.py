"""Adversarial training whose attack costs nothing: the gradient of each update moves it too."""

from __future__ import annotations

import tensorflow as tf

from netopt_cli.graph.attacks import Ball
from netopt_cli.graph.replica_state import of_replica


class FreeTraining:
    """Trains on each batch several times in a row, perturbed by what the last time taught
    (Shafahi et al., 2019). The perturbation goes on to the next batch. One object serves one
    training.

    Args:
        ball: Where the perturbation may go.
        shape: Of one sample.
        replays: How often each batch is trained on.
    """

    def __init__(self, ball: Ball, shape: tuple[int, ...], classes: int, replays: int) -> None:
        self._ball = ball
        self._replays = replays
        self._step = of_replica(tf.constant(0))
        # Of any batch size, which is not known yet.
        self._x = of_replica(tf.zeros((0, *shape)), shape=(None, *shape))
        self._y = of_replica(tf.zeros((0, classes)), shape=(None, classes))
        self._perturbation = of_replica(tf.zeros((0, *shape)), shape=(None, *shape))

    def perturb(self, x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The batch of before or a new one, perturbed: a `Modifier.transform_batch`."""
        is_new = self._step % self._replays == 0
        x = tf.ensure_shape(tf.cond(is_new, lambda: x, self._x.read_value), x.shape)
        y = tf.ensure_shape(tf.cond(is_new, lambda: y, self._y.read_value), y.shape)
        perturbation = tf.cond(
            self._step == 0, lambda: tf.zeros_like(x), self._perturbation.read_value
        )
        self._x.assign(x)
        self._y.assign(y)
        self._perturbation.assign(perturbation)
        self._step.assign_add(1)
        return self._ball.project(x + perturbation, x), y

    def move(self, gradient: tf.Tensor) -> None:
        """Moves the perturbation by the gradient at it: a `Modifier.input_gradient`."""
        radius = self._ball.radius
        moved = self._perturbation + radius * tf.sign(gradient)
        self._perturbation.assign(tf.clip_by_value(moved, -radius, radius))
