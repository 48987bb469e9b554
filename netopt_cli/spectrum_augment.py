"""Augmentation of batches of spectra, inside the compiled training step.

A spectrum (frames, bins, 1) is no picture: time and frequency change each in its own way. Shift and
stretch are one map, so that every value is interpolated once; what comes from outside repeats the
edge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

if TYPE_CHECKING:
    import tensorflow as tf

_Fraction = Annotated[float, Field(ge=0, lt=1)]


@with_config(ConfigDict(extra="forbid"))
class SpectrumAugmentOptions(TypedDict, total=False):
    """The arguments of `spectrum_augmentation`, as a config gives them."""

    time_shift: _Fraction
    time_stretch: _Fraction
    frequency_shift: _Fraction
    frequency_stretch: _Fraction
    time_mask: _Fraction
    frequency_mask: _Fraction
    noise: Annotated[float, Field(ge=0)]


def spectrum_augmentation(
    *,
    time_shift: float = 0.0,
    time_stretch: float = 0.0,
    frequency_shift: float = 0.0,
    frequency_stretch: float = 0.0,
    time_mask: float = 0.0,
    frequency_mask: float = 0.0,
    noise: float = 0.0,
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None:
    """Builds the augmentation, or returns None when nothing is switched on.

    Every sample draws its own change, uniformly, from the seed alone. On a mel spectrum, shift and
    stretch of the frequencies are about what another vocal tract does (Jaitly and Hinton 2013,
    vocal tract length perturbation).

    Args:
        time_shift, frequency_shift: Largest shift either way, as a fraction of frames or bins.
        time_stretch, frequency_stretch: The scale is in [1 - stretch, 1 + stretch].
        time_mask, frequency_mask: Longest stripe that becomes 0, the mean of standardized samples,
            as a fraction of frames or bins: of [0, longest], anywhere (SpecAugment: Park et al.
            2019, arXiv:1904.08779).
        noise: Standard deviation of the noise on each value, in units of normalized samples.

    Returns:
        (x, seed) -> x: x float32 (batch, frames, bins, channels), seed int32 (2,); in the graph,
        stateless.
    """
    moves = time_shift or time_stretch or frequency_shift or frequency_stretch
    if not (moves or time_mask or frequency_mask or noise):
        return None

    def augment(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        frames, bins = x.shape[1:3]
        # Uniform in [-1, 1), one (batch,) row a random quantity.
        dt, df, stretch_t, stretch_f, length_t, length_f, start_t, start_f = tf.unstack(
            tf.random.stateless_uniform((8, tf.shape(x)[0]), seed, minval=-1.0)
        )
        if moves:
            x = _moved(
                x,
                shift=(dt * time_shift * frames, df * frequency_shift * bins),
                scale=(1 + stretch_t * time_stretch, 1 + stretch_f * frequency_stretch),
            )
        if noise:
            x += noise * tf.random.stateless_normal(tf.shape(x), seed + tf.constant([1, 0]))
        if time_mask:
            x *= _kept(length_t, start_t, frames, time_mask)[:, :, None, None]
        if frequency_mask:
            x *= _kept(length_f, start_f, bins, frequency_mask)[:, None, :, None]
        return x

    return augment


def _moved(
    x: tf.Tensor, *, shift: tuple[tf.Tensor, tf.Tensor], scale: tuple[tf.Tensor, tf.Tensor]
) -> tf.Tensor:
    """Shifts by (frames, bins) and stretches about the middle; all of them (batch,)."""
    import tensorflow as tf

    frames, bins = x.shape[1:3]
    # Output (t, f) is read at (t / scale_t + t0, f / scale_f + f0).
    per_t, per_f = 1 / scale[0], 1 / scale[1]
    t0 = (frames - 1) / 2 * (1 - per_t) - shift[0]
    f0 = (bins - 1) / 2 * (1 - per_f) - shift[1]
    none = tf.zeros_like(t0)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=x,
        transforms=tf.stack([per_f, none, f0, none, per_t, t0, none, none], axis=1),
        output_shape=(frames, bins),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )


def _kept(length: tf.Tensor, start: tf.Tensor, size: int, longest: float) -> tf.Tensor:
    """(batch,) draws in [-1, 1) -> (batch, size): 0 in a stripe, 1 elsewhere."""
    import tensorflow as tf

    long = tf.floor((length + 1) / 2 * (int(longest * size) + 1))  # (batch,)
    first = tf.floor((start + 1) / 2 * (size - long + 1))
    position = tf.range(size, dtype=tf.float32) - first[:, None]  # (batch, size)
    return tf.cast((position < 0) | (position >= long[:, None]), tf.float32)
