"""Rounding to a grid with straight-through gradients, and the steps of grids."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

Method = Literal["minmax", "lsq"]
"""How the step of a grid comes about: from the values, or trained."""

# Below them the file's 32-bit biases, in units of input step times weight step, would overflow.
_SMALLEST_CHANNEL = 1e-5
_SMALLEST_KERNEL = 1e-6


def round_to_grid(x: tf.Tensor, step: tf.Tensor, low: Any, high: Any) -> tf.Tensor:
    """step × integer nearest to x / step in [low, high], any shapes that broadcast.

    The gradient of the rounding is 1. That of `step` is then the one of learned step size
    quantization (Esser et al. 2020, arXiv:1902.08153, equation 3), that of `x` is 0 outside.
    """
    clipped = tf.clip_by_value(x / step, low, high)
    return step * (clipped + tf.stop_gradient(tf.round(clipped) - clipped))


def least_error_step(kernel: np.ndarray, bits: int) -> np.ndarray:
    """Returns the steps of the least squared error among 40 fractions of the largest weight.

    Args:
        kernel: float32 (weights, channels).

    Returns:
        float32 (channels,).
    """
    levels = 2 ** (bits - 1) - 1
    largest = floored(np.abs(kernel).max(axis=0))
    candidates = largest / levels * np.linspace(0.2, 1.0, 40, dtype=np.float32)[:, None]
    errors = [
        np.square(kernel - step * np.clip(np.rint(kernel / step), -levels, levels)).sum(axis=0)
        for step in candidates
    ]
    return candidates[np.argmin(errors, axis=0), np.arange(kernel.shape[1])]


def floored(largest: Any) -> Any:
    """The largest weight of each channel (channels,), away from zero."""
    floor = np.maximum if isinstance(largest, np.ndarray) else tf.maximum
    whole = largest.max() if isinstance(largest, np.ndarray) else tf.reduce_max(largest)
    return floor(largest, floor(_SMALLEST_CHANNEL * whole, _SMALLEST_KERNEL))


def learned_step(variable: keras.Variable, count: int, levels: int) -> tf.Tensor:
    """exp(variable), its gradient divided by √(count × levels) (Esser et al. 2020, section 2.2).

    Steps are trained by their logarithm (Jain et al. 2020, arXiv:1903.08066): they stay positive,
    and Adam changes large and small ones in proportion.
    """
    value = tf.convert_to_tensor(variable.value)
    scale = 1.0 / math.sqrt(count * levels)
    return tf.exp(value * scale + tf.stop_gradient(value * (1.0 - scale)))
