"""Augmentation of image batches, inside the compiled training step.

Flip, shift, rotation, zoom and shear are one affine map, so every pixel is interpolated once,
whatever is switched on. What comes from outside the image repeats its edge, and colours change
within the range that each image has, which is right for any normalization. A shift is a random crop
of the image with its edge repeated around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

if TYPE_CHECKING:
    import tensorflow as tf

_OPERATIONS = (
    "rotation",
    "shear_y",
    "shear_x",
    "shift_y",
    "shift_x",
    "brightness",
    "contrast",
    "sharpness",
    "posterization",
)
"""Of RandAugment, besides none at all."""
_ANGLE, _SHEAR, _SHIFT, _COLOUR = math.radians(30), 0.3, 0.3, 0.9
"""What a magnitude of 1 is: radians, tangent, fraction of the image, change of a factor."""


@with_config(ConfigDict(extra="forbid"))
class AugmentOptions(TypedDict, total=False):
    """The arguments of `augmentation`, as a config gives them."""

    flip_horizontal: bool
    shift_fraction: Annotated[float, Field(ge=0, lt=1)]
    rotate_degrees: Annotated[float, Field(ge=0, le=180)]
    zoom_fraction: Annotated[float, Field(ge=0, lt=1)]
    cutout_fraction: Annotated[float, Field(ge=0, lt=1)]
    rand_augment_operations: Annotated[int, Field(ge=0)]
    rand_augment_magnitude: Annotated[float, Field(ge=0, le=1)]


def augmentation(
    *,
    flip_horizontal: bool = False,
    shift_fraction: float = 0.0,
    rotate_degrees: float = 0.0,
    zoom_fraction: float = 0.0,
    cutout_fraction: float = 0.0,
    rand_augment_operations: int = 0,
    rand_augment_magnitude: float = 0.3,
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
        rand_augment_operations: So many operations are drawn for each sample, with replacement, of
            ten equally likely ones: none, rotation, shear and shift either way, brightness,
            contrast, sharpness, posterization (RandAugment: Cubuk et al. 2020, arXiv:1909.13719).
            Unlike there, the strengths of those drawn add up and are applied at once: geometry
            together with the other options, then colours.
        rand_augment_magnitude: Of each of them: 1 is 30 degrees, a shear of 0.3, a shift of 0.3 of
            the image, a factor of 0.1 or 1.9 for brightness, contrast and sharpness, 2 levels left.

    Returns:
        (x, seed) -> x: x float32 (batch, h, w, c), seed int32 (2,); in the graph, stateless.
    """
    own_moves = flip_horizontal or shift_fraction or rotate_degrees or zoom_fraction
    draws_operations = rand_augment_operations and rand_augment_magnitude
    moves = own_moves or draws_operations
    if not (moves or cutout_fraction):
        return None

    def augment(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        height, width = x.shape[1:3]
        # Uniform in [-1, 1), one (batch,) row a random quantity.
        flip, dy, dx, angle, zoom, cut_y, cut_x = tf.unstack(
            tf.random.stateless_uniform((7, tf.shape(x)[0]), seed, minval=-1.0)
        )
        drawn = dict.fromkeys(_OPERATIONS, tf.zeros_like(flip))
        if draws_operations:
            drawn = _strengths(
                tf.shape(x)[0], seed, rand_augment_operations, rand_augment_magnitude
            )
        if moves:
            x = _affine(
                x,
                mirror=tf.where(flip < 0, -1.0, 1.0) if flip_horizontal else tf.ones_like(flip),
                dy=tf.round((dy * shift_fraction + _SHIFT * drawn["shift_y"]) * height),
                dx=tf.round((dx * shift_fraction + _SHIFT * drawn["shift_x"]) * width),
                angle=angle * math.radians(rotate_degrees) + _ANGLE * drawn["rotation"],
                scale=1 + zoom * zoom_fraction,
                shear_y=_SHEAR * drawn["shear_y"],
                shear_x=_SHEAR * drawn["shear_x"],
            )
        if draws_operations:
            x = _recoloured(x, drawn)
        if cutout_fraction:
            outside_rows = _outside(cut_y, height, cutout_fraction)
            outside_columns = _outside(cut_x, width, cutout_fraction)
            kept = outside_rows[:, :, None] | outside_columns[:, None, :]  # (batch, h, w)
            x = tf.where(kept[..., None], x, 0.0)
        return x

    return augment


def _strengths(
    count: tf.Tensor, seed: tf.Tensor, operations: int, magnitude: float
) -> dict[str, tf.Tensor]:
    """Operation -> (count,): the sum of the signed magnitudes with which a sample has drawn it."""
    import tensorflow as tf

    shape = (operations, count)
    which = tf.random.stateless_uniform(
        shape, seed + tf.constant([7, 0]), minval=0, maxval=len(_OPERATIONS) + 1, dtype=tf.int32
    )
    sign = tf.sign(tf.random.stateless_uniform(shape, seed + tf.constant([8, 0]), minval=-1.0))
    # One of them, the last, is no operation.
    of_each = tf.one_hot(which, len(_OPERATIONS)) * (sign * magnitude)[..., None]
    total = tf.unstack(tf.reduce_sum(of_each, axis=0), axis=-1)
    return dict(zip(_OPERATIONS, total, strict=True))


def _recoloured(x: tf.Tensor, strength: dict[str, tf.Tensor]) -> tf.Tensor:
    """Changes brightness, contrast, sharpness and the number of levels of images (batch, h, w, c),
    each channel within the range that it has in its image; strengths are (batch,)."""
    import tensorflow as tf

    def factor(name: str) -> tf.Tensor:
        return tf.maximum(1.0 + _COLOUR * strength[name], 0.0)[:, None, None, None]

    low = tf.reduce_min(x, axis=(1, 2), keepdims=True)
    high = tf.reduce_max(x, axis=(1, 2), keepdims=True)
    blurred = tf.nn.avg_pool2d(x, 3, strides=1, padding="SAME")  # Means of what is in the image.
    mean = tf.reduce_mean(x, axis=(1, 2), keepdims=True)
    x = tf.clip_by_value(blurred + factor("sharpness") * (x - blurred), low, high)
    x = tf.clip_by_value(mean + factor("contrast") * (x - mean), low, high)
    x = tf.clip_by_value(low + factor("brightness") * (x - low), low, high)
    lost = tf.minimum(tf.abs(strength["posterization"]), 1.0)[:, None, None, None]
    steps = tf.round(2.0 ** (8.0 - 7.0 * lost)) - 1.0  # 256 to 2 levels
    span = tf.maximum(high - low, 1e-12)
    coarse = low + tf.round((x - low) / span * steps) / steps * span
    return tf.where(lost > 0, coarse, x)


def _affine(
    x: tf.Tensor,
    *,
    mirror: tf.Tensor,
    dy: tf.Tensor,
    dx: tf.Tensor,
    angle: tf.Tensor,
    scale: tf.Tensor,
    shear_y: tf.Tensor,
    shear_x: tf.Tensor,
) -> tf.Tensor:
    """Moves every image (h, w, c) of `x` about its centre; the other arguments are (batch,)."""
    import tensorflow as tf

    height, width = x.shape[1:3]
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    cosine, sine = tf.cos(angle) / scale, tf.sin(angle) / scale
    # Output pixel (u, v) is read at (xx·u + xy·v + x0, yx·u + yy·v + y0).
    xx, xy = (cosine - sine * shear_y) * mirror, cosine * shear_x - sine
    yx, yy = (sine + cosine * shear_y) * mirror, sine * shear_x + cosine
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
