"""Ratings that several tests read: two tastes, with a little chance."""

from pathlib import Path

import numpy as np

USERS, ITEMS, EACH = 60, 40, 16


def write_ratings(folder: Path) -> Path:
    """A CSV in which users of even numbers rate items of even numbers, and so on; each user one of
    the others. `age` and `city` tell of the user."""
    random = np.random.default_rng(0)
    lines = ["user,item,rating,timestamp,age,city"]
    for user in range(USERS):
        own = random.permutation(np.arange(user % 2, ITEMS, 2))[: EACH - 1]
        for time, item in enumerate([*own, (user + 1) % 2]):
            rating = random.integers(3, 6)
            lines.append(f"u{user},i{item},{rating},{1000 * user + time},{20 + user},c{user % 3}")
    path = folder / "ratings.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
