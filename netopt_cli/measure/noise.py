"""A sample to time a file on, where the time does not depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def noise(random: np.random.Generator, shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Standard normal values; of tokens and ids the first one, which every vocabulary has."""
    if np.dtype(dtype) in (np.int32, np.int64):
        return np.zeros(shape, dtype)
    return random.standard_normal(shape, np.float32)
