"""Augmentation of image batches, inside the compiled training step.

Flip, shift, rotation and zoom are one affine map, so every pixel is interpolated once whatever is
switched on. What comes from outside the image repeats its edge, which is right for any
normalization.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

if TYPE_CHECKING:
    import tensorflow as tf


@with_config(ConfigDict(extra="forbid"))
class AugmentOptions(TypedDict, total=False):
    """The arguments of `augmentation`, as a config gives them."""

    flip_horizontal: bool
    shift_fraction: Annotated[float, Field(ge=0, lt=1)]
    rotate_degrees: Annotated[float, Field(ge=0, le=180)]
    zoom_fraction: Annotated[float, Field(ge=0, lt=1)]
    cutout_fraction: Annotated[float, Field(ge=0, lt=1)]


def augmentation(
    *,
    flip_horizontal: bool = False,
    shift_fraction: float = 0.0,
    rotate_degrees: float = 0.0,
    zoom_fraction: float = 0.0,
    cutout_fraction: float = 0.0,
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None:
    """Builds the augmentation, or returns None when nothing is switched on.

    Every sample draws its own change, uniformly, from the seed alone.

    Args:
        flip_horizontal: Mirror left and right with probability 1/2.
        shift_fraction: Largest shift either way, as a fraction of the height and of the width;
            shifts are whole pixels, which keeps the image sharp.
        rotate_degrees: Largest rotation either way.
        zoom_fraction: The scale is in [1 - zoom_fraction, 1 + zoom_fraction].
        cutout_fraction: Side of the zeroed square, as a fraction of the image's; its centre is
            anywhere in the image, so part of it may be outside (DeVries & Taylor 2017,
            arXiv:1708.04552).

    Returns:
        (x, seed) -> x: x float32 (batch, h, w, c), seed int32 (2,); in the graph, stateless.
    """
    moves = flip_horizontal or shift_fraction or rotate_degrees or zoom_fraction
    if not (moves or cutout_fraction):
        return None

    def augment(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        height, width = x.shape[1:3]
        # Uniform in [-1, 1), one (batch,) row a random quantity.
        flip, dy, dx, angle, zoom, cut_y, cut_x = tf.unstack(
            tf.random.stateless_uniform((7, tf.shape(x)[0]), seed, minval=-1.0)
        )
        if moves:
            x = _affine(
                x,
                mirror=tf.where(flip < 0, -1.0, 1.0) if flip_horizontal else tf.ones_like(flip),
                dy=tf.round(dy * shift_fraction * height),
                dx=tf.round(dx * shift_fraction * width),
                angle=angle * math.radians(rotate_degrees),
                scale=1 + zoom * zoom_fraction,
            )
        if cutout_fraction:
            outside_rows = _outside(cut_y, height, cutout_fraction)
            outside_columns = _outside(cut_x, width, cutout_fraction)
            kept = outside_rows[:, :, None] | outside_columns[:, None, :]  # (batch, h, w)
            x = tf.where(kept[..., None], x, 0.0)
        return x

    return augment


def _affine(
    x: tf.Tensor,
    *,
    mirror: tf.Tensor,
    dy: tf.Tensor,
    dx: tf.Tensor,
    angle: tf.Tensor,
    scale: tf.Tensor,
) -> tf.Tensor:
    """Moves every image (h, w, c) of `x` about its centre; the other arguments are (batch,)."""
    import tensorflow as tf

    height, width = x.shape[1:3]
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    cosine, sine = tf.cos(angle) / scale, tf.sin(angle) / scale
    # Output pixel (u, v) is read at (xx·u + xy·v + x0, yx·u + yy·v + y0).
    xx, xy = cosine * mirror, -sine
    yx, yy = sine * mirror, cosine
    x0 = centre_x + dx - xx * centre_x - xy * centre_y
    y0 = centre_y + dy - yx * centre_x - yy * centre_y
    perspective = tf.zeros_like(dx)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=x,
        transforms=tf.stack([xx, xy, x0, yx, yy, y0, perspective, perspective], axis=1),
        output_shape=(height, width),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )


def _outside(centre: tf.Tensor, size: int, fraction: float) -> tf.Tensor:
    """(batch,) centres in [-1, 1) -> (batch, size) bool, False in the cut-out stripe."""
    import tensorflow as tf

    length = max(1, round(fraction * size))
    start = tf.floor((centre + 1) / 2 * size) - length // 2  # (batch,)
    position = tf.range(size, dtype=tf.float32) - start[:, None]  # (batch, size)
    return (position < 0) | (position >= length)
