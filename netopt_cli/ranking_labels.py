"""Labels of a ranking: for each sample a padded row of the items to find and those to leave out.

Rows grow with what a user has done, not with how many items there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NOTHING = -1
"""Fills up a row."""


def encode(wanted: Sequence[np.ndarray], seen: Sequence[np.ndarray]) -> np.ndarray:
    """Returns int32 (n, longest).

    Args:
        wanted: Items to find, for each sample.
        seen: Items that are not to be ranked, since they were seen before: -2 - item in a row.
    """
    rows = [np.concatenate([w, -2 - s]) for w, s in zip(wanted, seen, strict=True)]
    return padded(rows, max(map(len, rows), default=0), NOTHING)


def padded(rows: Sequence[np.ndarray], length: int, filler: int) -> np.ndarray:
    """Returns int32 (n, length), each row filled up at its end."""
    found = np.full((len(rows), length), filler, np.int32)
    for to, row in zip(found, rows, strict=True):
        to[: len(row)] = row
    return found


def wanted_in(row: np.ndarray) -> np.ndarray:
    """The items to find of a row."""
    return row[row >= 0]


def seen_in(row: np.ndarray) -> np.ndarray:
    """The items of a row that are not ranked."""
    return -2 - row[row < NOTHING]
