"""What the stages that learn with few labels have in common: what they need, and their samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.contracts import Preflight
from netopt_cli.dataset import ArraySource, Dataset, Normalization, Source
from netopt_cli.errors import InputError
from netopt_cli.graph.exits import final_logits

_BATCH = 500
_READERS = 16
"""Files that are decoded at once."""


def require_unlabeled(preflight: Preflight) -> None:
    """Raises InputError where every training sample has its label."""
    if not preflight.unlabeled:
        raise InputError(
            f"opt.{preflight.stage} learns from training samples without labels, and all have "
            "theirs: give a label budget, as data.labels_per_class=10"
        )


def require_images(preflight: Preflight) -> None:
    """Raises InputError where the samples cannot be augmented."""
    shape = preflight.network.model.inputs[0].shape[1:]
    if len(shape) != 3:
        raise InputError(
            f"opt.{preflight.stage} compares augmented samples, which there are of images (height, "
            f"width, channels) alone. Received: samples of shape {shape}; opt=pseudo_label and "
            "opt=active take any"
        )


def repeated(data: Dataset, samples: int) -> Dataset:
    """Returns the data with its training samples repeated until they are so many: an epoch then has
    as many steps as one over that number of samples without labels."""
    indices = np.arange(max(samples, len(data.train))) % len(data.train)
    return replace(data, train=data.train.take(indices))


def probabilities(model: keras.Model, data: Dataset, source: Source) -> np.ndarray:
    """What the model says of each sample, float32 (n, classes)."""
    batches = data.normalized_batches(source, _BATCH)
    said = [tf.nn.softmax(final_logits(model(x, training=False))) for x, _ in batches]
    return np.concatenate([each.numpy() for each in said])


def random_samples(
    source: Source, normalization: Normalization
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns (count, seed) -> x: so many samples drawn at random, float32 (count, *shape),
    normalized; in the graph. Arrays lie on the device, files are read as they are needed."""
    size = len(source)
    if isinstance(source, ArraySource):
        x = tf.constant(source.x)

        def read(indices: tf.Tensor) -> tf.Tensor:
            return tf.gather(x, indices)
    else:
        paths, decode = tf.constant(source.paths), source.decode

        def read(indices: tf.Tensor) -> tf.Tensor:
            return tf.map_fn(
                decode,
                tf.gather(paths, indices),
                parallel_iterations=_READERS,
                fn_output_signature=tf.uint8,
            )

    def draw(count: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        indices = tf.random.stateless_uniform([count], seed, maxval=size, dtype=tf.int32)
        return normalization.tensor(read(indices))

    return draw
