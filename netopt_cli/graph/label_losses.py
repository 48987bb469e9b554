"""Losses on the labels other than cross-entropy, and labels other than one class."""

from __future__ import annotations

import tensorflow as tf

from netopt_cli.contracts import Forward, Modifier
from netopt_cli.task.classification import labeled_mean


def label_smoothing(share: float) -> Modifier:
    """Spreads a share of each label over all classes (Szegedy et al., 2016)."""

    def transform(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return x, y * (1.0 - share) + share / y.shape[-1]

    return Modifier("label smoothing", transform_batch=transform)


def confidence_penalty(factor: float) -> Modifier:
    """Takes factor · the mean entropy (nats) of the predictions off the loss (Pereyra et al.,
    2017)."""

    def extra_loss(step: Forward) -> tf.Tensor:
        log_p = tf.nn.log_softmax(step.logits)
        return factor * tf.reduce_mean(tf.reduce_sum(tf.exp(log_p) * log_p, axis=-1))

    return Modifier("confidence penalty", extra_loss=extra_loss)


def focal_loss(gamma: float) -> Modifier:
    """Puts Σ y (1 - p)^gamma (-log p) in place of cross-entropy: what is predicted well already
    counts little (Lin et al., 2017)."""

    def extra_loss(step: Forward) -> tf.Tensor:
        log_p = tf.nn.log_softmax(step.logits)
        # The slope of a power below 1 is infinite at 0.
        missing = tf.maximum(1.0 - tf.exp(log_p), 1e-7)
        return labeled_mean(tf.reduce_sum(-step.y * missing**gamma * log_p, axis=-1), step.y)

    return Modifier("focal loss", extra_loss=extra_loss, task_loss_weight=0.0)
