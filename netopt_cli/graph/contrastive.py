"""Contrastive learning: two views of a sample are to be told from all others of the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from netopt_cli.contracts import Forward, Modifier
from netopt_cli.errors import InputError
from netopt_cli.graph.distillation_losses import embedding
from netopt_cli.graph.rebuild import as_functional, head

if TYPE_CHECKING:
    from netopt_cli.dataset import Augment

_EXCLUDED = -1e9


def nt_xent(first: tf.Tensor, second: tf.Tensor, temperature: float) -> tf.Tensor:
    """How badly each view is told, as the other's partner, from the views of all other samples
    (nats): the normalized temperature-scaled cross-entropy of Chen et al., "A Simple Framework for
    Contrastive Learning of Visual Representations" (ICML 2020).

    Args:
        first, second: The views, float32 (batch, size); row i of both is of sample i.
    """
    views = tf.math.l2_normalize(tf.concat([first, second], axis=0), axis=-1, epsilon=1e-12)
    count = tf.shape(views)[0]
    likeness = tf.matmul(views, views, transpose_b=True) / temperature  # (2 batch, 2 batch)
    likeness += _EXCLUDED * tf.eye(count)
    partner = tf.math.floormod(tf.range(count) + count // 2, count)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(partner, likeness)
    return tf.reduce_mean(losses)


def representation(model: keras.Model) -> keras.KerasTensor:
    """Returns what the head makes the logits of, (batch, …, channels).

    Raises:
        InputError: The model has no head, or it is inside of a nested model.
    """
    layer = head(model)
    if layer is None or layer not in as_functional(model).operations:
        raise InputError(
            f"'{model.name}' has no last Dense or convolution in its outer graph, before which "
            "the representation could be read"
        )
    return layer.input


def projection_head(channels: int, size: int) -> keras.Model:
    """A network of one hidden layer as wide as the representation, which the loss is applied behind
    and which is thrown away: what it forgets, the representation keeps (ibid., section 4.2)."""
    inputs = keras.Input((channels,))
    hidden = keras.layers.Dense(channels, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(size)(hidden))


def two_views(model: keras.Model, view: Augment, *, size: int, temperature: float) -> Modifier:
    """Trains all but the last layer on two views of each sample; labels are left out. The batch is
    twice as long, so that BatchNorm normalizes both views alike. With several replicas, each tells
    views from those of its own samples.

    Args:
        view: The augmentation that makes a view.
        size: Of the embeddings that are compared.
    """
    features = representation(model)
    project = projection_head(features.shape[-1], size)

    def transform(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        views = [view(x, seed), view(x, seed + tf.constant([1, 0]))]
        return tf.concat(views, axis=0), tf.zeros([2 * tf.shape(y)[0], y.shape[1]])

    def extra_loss(step: Forward) -> tf.Tensor:
        pooled = embedding(tf.cast(step.taps[0], tf.float32))
        embedded = project(pooled, training=True)
        first, second = tf.split(embedded, 2)
        return nt_xent(first, second, temperature)

    return Modifier(
        "contrastive",
        transform_batch=transform,
        extra_loss=extra_loss,
        taps=(features,),
        networks=(project,),
        settles_at=1.0,  # the logits, and so validation, mean nothing yet
    )
