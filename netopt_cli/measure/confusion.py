"""Which classes a file takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_CLASSES = 32
"""With more classes the matrix is not kept: nobody could read it."""


def confusion(
    labels: np.ndarray, predicted: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any] | None:
    """Counts the samples of each class by what they are taken for.

    Args:
        labels: (n,) numbers of classes.
        predicted: (n,) likewise.

    Returns:
        `classes`, their names, and `counts`, a list for each class of the labels with a number for
        each class predicted; None with more than `MOST_CLASSES`.
    """
    classes = len(class_names)
    if classes > MOST_CLASSES:
        return None
    pairs = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return {"classes": list(class_names), "counts": pairs.reshape(classes, classes).tolist()}
