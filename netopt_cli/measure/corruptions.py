"""Common corruptions of samples, after Hendrycks and Dietterich (2019), computed here.

Seven kinds in five severities, on values in [0, 1]. They are a set of our own: figures compare
between networks measured here, not with those of ImageNet-C or MNIST-C.

    gaussian_noise   deviation 0.04, 0.08, 0.12, 0.18, 0.26
    shot_noise       Poisson counts, at most 60, 25, 12, 5, 3 of a full value
    impulse_noise    1, 3, 6, 10, 17 % of the values become 0 or 1
    contrast         distances to the mean of the sample times 0.75, 0.5, 0.4, 0.3, 0.15
    brightness       0.05, 0.1, 0.15, 0.2, 0.3 are added
    gaussian_blur    deviation 0.5, 0.7, 0.9, 1.2, 1.6 pixels, more on sides above 32; images alone
    occlusion        a grey square of 10, 20, 30, 40, 50 % of the shorter side; images alone
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

SEVERITIES = 5

_Corrupt = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def corruptions_of(shape: tuple[int, ...]) -> tuple[str, ...]:
    """The corruptions that samples of a shape can have."""
    return (*_OF_VALUES, *_OF_IMAGES) if len(shape) == 3 else tuple(_OF_VALUES)


def corrupt(x: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """Corrupts samples.

    Args:
        x: float32 (n, *shape) in [0, 1].
        name: One of `corruptions_of(shape)`.
        severity: 1 to 5.

    Returns:
        Like x, in [0, 1].
    """
    function, strengths = (_OF_VALUES | _OF_IMAGES)[name]
    random = np.random.default_rng([seed, severity])
    return function(x, strengths[severity - 1], random).clip(0, 1).astype(np.float32)


def _gaussian_noise(x: np.ndarray, deviation: float, random: np.random.Generator) -> np.ndarray:
    return x + deviation * random.standard_normal(x.shape, np.float32)


def _shot_noise(x: np.ndarray, most: float, random: np.random.Generator) -> np.ndarray:
    return random.poisson(x * most) / most


def _impulse_noise(x: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    draw = random.random(x.shape)
    return np.where(draw < share, np.where(draw < share / 2, 0.0, 1.0), x)


def _contrast(x: np.ndarray, factor: float, random: np.random.Generator) -> np.ndarray:
    mean = x.mean(axis=tuple(range(1, x.ndim)), keepdims=True)
    return mean + factor * (x - mean)


def _brightness(x: np.ndarray, added: float, random: np.random.Generator) -> np.ndarray:
    return x + added


def _gaussian_blur(x: np.ndarray, pixels: float, random: np.random.Generator) -> np.ndarray:
    deviation = pixels * max(1.0, min(x.shape[1:3]) / 32)
    reach = max(1, math.ceil(3 * deviation))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    taps /= taps.sum()
    for axis in (1, 2):
        size = x.shape[axis]
        padding = [(reach, reach) if a == axis else (0, 0) for a in range(x.ndim)]
        padded = np.pad(x, padding, mode="edge")
        x = sum(
            tap * padded.take(range(offset, offset + size), axis) for offset, tap in enumerate(taps)
        )
    return x


def _occlusion(x: np.ndarray, fraction: float, random: np.random.Generator) -> np.ndarray:
    height, width = x.shape[1:3]
    side = max(1, round(fraction * min(height, width)))
    top = random.integers(0, height - side + 1, len(x))[:, None]
    left = random.integers(0, width - side + 1, len(x))[:, None]
    rows, columns = np.arange(height)[None], np.arange(width)[None]
    in_rows = (rows >= top) & (rows < top + side)  # (n, height)
    in_columns = (columns >= left) & (columns < left + side)
    return np.where((in_rows[:, :, None] & in_columns[:, None, :])[..., None], 0.5, x)


_OF_VALUES: dict[str, tuple[_Corrupt, tuple[float, ...]]] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.08, 0.12, 0.18, 0.26)),
    "shot_noise": (_shot_noise, (60, 25, 12, 5, 3)),
    "impulse_noise": (_impulse_noise, (0.01, 0.03, 0.06, 0.1, 0.17)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
}
_OF_IMAGES: dict[str, tuple[_Corrupt, tuple[float, ...]]] = {
    "gaussian_blur": (_gaussian_blur, (0.5, 0.7, 0.9, 1.2, 1.6)),
    "occlusion": (_occlusion, (0.1, 0.2, 0.3, 0.4, 0.5)),
}
