"""Samples made of two of a batch, with labels in proportion.

Batches are shuffled, so that a sample's partner can be its mirror image in the batch.
"""

from __future__ import annotations

import tensorflow as tf

from netopt_cli.contracts import Modifier


def mixing(mixup: float, cutmix: float) -> Modifier:
    """Mixes pairs by mixup or CutMix; with both, each batch draws which one.

    Args:
        mixup, cutmix: Parameter of Beta(a, a), from which each batch draws the first one's share;
            0 leaves the method out.
    """

    def transform(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if mixup and cutmix:
            is_first = tf.random.stateless_uniform((), seed + tf.constant([1, 0])) < 0.5
            return tf.cond(
                is_first,
                lambda: _mixed_up(x, y, seed, mixup),
                lambda: _cut_and_mixed(x, y, seed, cutmix),
            )
        return _mixed_up(x, y, seed, mixup) if mixup else _cut_and_mixed(x, y, seed, cutmix)

    return Modifier("mixup" if mixup else "cutmix", transform_batch=transform)


def _mixed_up(
    x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor, alpha: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Every value is a weighted mean (Zhang et al., 2018)."""
    share = _beta(seed, alpha)
    return (
        share * x + (1.0 - share) * tf.reverse(x, [0]),
        share * y + (1.0 - share) * tf.reverse(y, [0]),
    )


def _cut_and_mixed(
    x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor, alpha: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """A rectangle is the other's; labels go by the pixels that it has (Yun et al., 2019)."""
    height, width = x.shape[1:3]
    side = tf.sqrt(1.0 - _beta(seed, alpha))
    centre = tf.random.stateless_uniform((2,), seed + tf.constant([2, 0]))
    inside = _stripe(centre[0], side, height)[:, None] & _stripe(centre[1], side, width)[None, :]
    share = 1.0 - tf.reduce_mean(tf.cast(inside, tf.float32))
    return (
        tf.where(inside[None, :, :, None], tf.reverse(x, [0]), x),
        share * y + (1.0 - share) * tf.reverse(y, [0]),
    )


def _stripe(centre: tf.Tensor, side: tf.Tensor, size: int) -> tf.Tensor:
    """Bool (size,): what is at most half a side from the centre, both as fractions of the size."""
    position = (tf.range(size, dtype=tf.float32) + 0.5) / size
    return tf.abs(position - centre) < side / 2


def _beta(seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """A draw of Beta(alpha, alpha), as a ratio of two gamma draws."""
    first, second = tf.unstack(tf.random.stateless_gamma((2,), seed, alpha))
    return first / tf.maximum(first + second, 1e-12)
