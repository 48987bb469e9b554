"""From the name of a user to a sample: for `netopt predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netopt_cli.errors import InputError, did_you_mean
from netopt_cli.ranking_labels import padded


@dataclass(frozen=True)
class RatingReader:
    """Names of users that there were in training.

    Attributes:
        users: By their numbers.
        histories: Of each, the tokens of the items that are known to have been seen.
        about: Of each, what else is known.
        longest: Tokens of a sample.
    """

    users: tuple[str, ...]
    histories: tuple[tuple[int, ...], ...]
    about: tuple[tuple[int, ...], ...]
    longest: int
    kind = "ratings"
    expects = "the name of a user of the training data"

    def to_json(self) -> dict[str, Any]:
        return {
            "users": self.users,
            "histories": self.histories,
            "about": self.about,
            "longest": self.longest,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RatingReader:
        return cls(
            tuple(values["users"]),
            tuple(map(tuple, values["histories"])),
            tuple(map(tuple, values["about"])),
            values["longest"],
        )

    def samples(self, users: Sequence[int]) -> np.ndarray:
        """int32 (n, values): the number, the history and what else is known of each user."""
        histories = padded([np.array(self.histories[u]) for u in users], self.longest, 0)
        about = np.array([self.about[u] for u in users], np.int32).reshape(len(users), -1)
        numbers = np.array(users, np.int32)[:, np.newaxis]
        return np.concatenate([numbers, histories, about], axis=1)

    def read(self, values: Sequence[str]) -> list[tuple[str, np.ndarray]]:
        number = {name: index for index, name in enumerate(self.users)}
        for value in values:
            if value not in number:
                raise InputError(
                    f"unknown user '{value}'.{did_you_mean(value, self.users)} There are "
                    f"{len(self.users):,} in the training data"
                )
        return list(zip(values, self.samples([number[value] for value in values]), strict=True))
