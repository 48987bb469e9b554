"""Statistics of BatchNorm that fit the weights again after these have changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf


def recalibrate(model: keras.Model, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> int:
    """Estimates the moving mean and variance of every BatchNorm anew, by forward passes alone.

    The statistics become those of all the samples together (mean of the batches' variances plus
    variance of their means), as the network sees them in training: each BatchNorm normalizes by
    its batch, dropout is active. Nothing else of the model changes. Frozen layers are left alone; a
    layer that is called several times gets the statistics of its last call.

    Pruned networks need it because the moving statistics are those of the weights that were
    (Li et al., "EagleEye", 2020).

    Args:
        model: Any built model; changed in place.
        batches: (x, y) with x float32 (batch, *shape), normalized; y is not looked at. At least 32
            samples a batch, or the normalization by the batch is noise.

    Returns:
        The number of layers that have new statistics: 0 without BatchNorm or without batches.
    """
    layers = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    if not layers:
        return 0

    @tf.function(reduce_retracing=True)
    def moments_of(x: tf.Tensor) -> list[tf.Tensor]:
        """Mean, squared mean and variance of the batch, (3, channels), for each layer."""
        # In the scope nothing is assigned to the model, whatever its other layers would update.
        with keras.StatelessScope() as scope:
            model(x, training=True)
        moments = []
        for layer in layers:
            mean = tf.cast(scope.get_current_value(layer.moving_mean), tf.float64)
            variance = tf.cast(scope.get_current_value(layer.moving_variance), tf.float64)
            moments.append(tf.stack([mean, mean**2, variance]))
        return moments

    samples = 0
    sums = [np.zeros((3, *layer.moving_mean.shape)) for layer in layers]
    with _only_the_batch_counts(layers):
        for x, _ in batches:
            samples += len(x)
            for index, moments in enumerate(moments_of(x)):
                sums[index] += len(x) * moments.numpy()
    if not samples:
        return 0
    for layer, total in zip(layers, sums, strict=True):
        mean, squared_mean, variance = total / samples
        layer.moving_mean.assign(mean.astype(np.float32))
        layer.moving_variance.assign((variance + squared_mean - mean**2).astype(np.float32))
    return len(layers)


@contextmanager
def _only_the_batch_counts(layers: list[keras.layers.BatchNormalization]) -> Iterator[None]:
    """Lets the layers forget their statistics of before in a forward pass."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
