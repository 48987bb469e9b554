"""Which ratings are held back: at random, the latest, or the last of each user."""

from __future__ import annotations

from typing import Literal

import numpy as np

SplitRule = Literal["random", "temporal", "leave_one_out"]


def held_back(
    users: np.ndarray, times: np.ndarray, rule: SplitRule, fraction: float, seed: int
) -> np.ndarray:
    """Chooses ratings to hold back.

    Args:
        users: (n,) whole numbers.
        times: (n,); of two of one time the later row is the later one.
        rule: `random`: that fraction of each user's, rounded up or down by chance, so that it holds
            over users of few ratings; each user keeps one. `temporal`: the latest of all, whoever
            rated. `leave_one_out`: the last of each user who has another.
        fraction: Unused by `leave_one_out`.
        seed: Of `random`.

    Returns:
        (n,) bool.
    """
    count = len(users)
    chosen = np.zeros(count, bool)
    by_time = np.lexsort((np.arange(count), times))
    if rule == "temporal":
        chosen[by_time[count - round(fraction * count) :]] = True
        return chosen
    random = np.random.default_rng(seed)
    order = random.permutation(count) if rule == "random" else by_time[::-1]
    # All ratings of a user beside one another, those to be held back first.
    order = order[np.argsort(users[order], kind="stable")]
    _, starts, sizes = np.unique(users[order], return_index=True, return_counts=True)
    part = np.floor(fraction * sizes + random.random(len(sizes)))
    wanted = np.ones_like(sizes) if rule == "leave_one_out" else part
    wanted = np.minimum(wanted, sizes - 1).astype(int)
    place = np.arange(count) - np.repeat(starts, sizes)
    chosen[order[place < np.repeat(wanted, sizes)]] = True
    return chosen


def given_back(users: np.ndarray, items: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(n,) bool: `held` without the ratings whose user or item would have none left."""
    known = np.isin(users, users[~held]) & np.isin(items, items[~held])
    return held & known
