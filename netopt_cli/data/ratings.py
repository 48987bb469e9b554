"""Users and the items that they have rated: one CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from netopt_cli.assembly import TEST_SPLIT_SEED, Fraction, assemble
from netopt_cli.dataset import Dataset
from netopt_cli.errors import DataError
from netopt_cli.inputs import Field as InputField
from netopt_cli.inputs import Inputs
from netopt_cli.ranking_labels import encode
from netopt_cli.rating_reader import RatingReader
from netopt_cli.rating_splits import SplitRule, given_back, held_back
from netopt_cli.rating_table import RatingTable, read_ratings
from netopt_cli.task.ranking import RANKING, Ranking
from netopt_cli.tasks import Task

_FIRST_ITEM = 2
"""Tokens of a history: 0 is padding, 1 unknown, then come the items."""
_NUMBER_SCALE = 1e-3
"""What a whole number stands for among the numbers of a user."""


def load(
    seed: int,
    *,
    path: str,
    columns: Sequence[str] | None = None,
    delimiter: str = ",",
    user_column: str = "user",
    item_column: str = "item",
    rating_column: str | None = "rating",
    timestamp_column: str | None = "timestamp",
    min_rating: float | None = None,
    duplicates: Literal["last", "refuse"] = "last",
    split: SplitRule = "random",
    test_fraction: Fraction = 0.25,
    validation_fraction: Fraction = 0.1,
    unseen: Literal["leave_out", "refuse"] = "leave_out",
    history: Annotated[int, Field(ge=0)] = 1000,
    user_features: Sequence[str] = (),
    user_numbers: Sequence[str] = (),
    task: Task = RANKING,
) -> Dataset:
    """Loads ratings; each user is a sample, and what is wanted are items that were held back.

    The test split is the same for every seed; the validation split is held back of what is left, in
    the same way, except for ratings whose user or item has no other. Items are numbered by how
    often they occur outside the test split, and so are users. A validation ranking leaves the
    items of the training split out, a test ranking those of both.

    A sample is the number of the user; the items that the user is known to have rated, the latest
    first, those of the training split alone for training and validation, those of both for the
    test; and what else is known of the user.

    Args:
        seed: Of the validation split.
        columns: Names of the columns, of a file whose first line does not have them.
        delimiter: One character.
        rating_column: None where a line alone says that the user has chosen the item.
        timestamp_column: None where the lines are in the order of time.
        min_rating: Ratings below are left out.
        duplicates: Of a user and an item: the latest counts, or they are refused.
        split: See `rating_splits.held_back`.
        test_fraction: Of the ratings.
        validation_fraction: Of the ratings that are left.
        unseen: Test ratings of a user or an item that occurs nowhere else are left out and counted,
            or refused.
        history: A sample has so many items at most; with 0 it has none.
        user_features: Further columns that tell of the user, as categories.
        user_numbers: Further columns as numbers, standardized over the users.
        task: What is to be learned: a ranking.

    Raises:
        DataError: The file is missing, malformed or too small; the line is named.
    """
    if not isinstance(task, Ranking):
        raise DataError(f"data=ratings needs task=ranking. Received: task={task.name}")
    taken = sorted({"user", "history", "numbers"} & set(user_features))
    if taken:
        raise DataError(
            f"data.user_features must not be called as other parts of a sample are. Received: "
            f"{taken[0]}. data.columns gives columns other names"
        )
    table = read_ratings(
        path,
        columns=columns,
        delimiter=delimiter,
        user=user_column,
        item=item_column,
        rating=rating_column,
        timestamp=timestamp_column,
        further=[*user_features, *user_numbers],
    )
    table, notes = _cleaned(table, duplicates, min_rating)
    _, user_of = np.unique(table.users, return_inverse=True)
    in_test = held_back(user_of, table.times, split, test_fraction, TEST_SPLIT_SEED)
    digest = table.digest()
    digest.update(in_test.tobytes())
    known, test = table.take(~in_test), table.take(in_test)
    users, items = _Numbering(known.users), _Numbering(known.items)
    test = _seen(test, users, items, unseen, notes)
    known_users, known_items = users(known.users), items(known.items)
    held = held_back(known_users, known.times, split, validation_fraction, seed)
    held = given_back(known_users, known_items, held)
    sizes = {"train": (~held).sum(), "validation": held.sum(), "test": len(test)}
    for name, size in sizes.items():
        if size == 0:
            raise DataError(
                f"{table.file}: {len(table):,} ratings leave the {name} split empty with "
                f"data.split={split}, test_fraction={test_fraction}, "
                f"validation_fraction={validation_fraction}."
            )

    by_time = np.lexsort((np.arange(len(known)), known.times))[::-1]
    in_train = by_time[~held[by_time]]
    trained = _by_user(known_users[in_train], known_items[in_train], users.count)
    validated = _by_user(known_users[held], known_items[held], users.count)
    of_both = _by_user(known_users[by_time], known_items[by_time], users.count)
    tested = _by_user(users(test.users), items(test.items), users.count)
    nothing = [np.zeros(0, int)] * users.count

    about = _About(known, users, by_time, user_features, user_numbers)
    longest = min(history, max(map(len, of_both)))
    fields = [InputField("user", "ids", (1,), users.count)]
    if longest:
        fields.append(InputField("history", "tokens", (longest,), _FIRST_ITEM + items.count))

    def reader(read: list[np.ndarray]) -> RatingReader:
        histories = (tuple((_FIRST_ITEM + one[:longest]).tolist()) for one in read)
        return RatingReader(users.names, tuple(histories), about.values, longest)

    def samples(
        wanted: list[np.ndarray], seen: list[np.ndarray], read: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        chosen = [user for user in range(users.count) if len(wanted[user])]
        y = encode([wanted[user] for user in chosen], [seen[user] for user in chosen])
        return reader(read).samples(chosen), y

    data = assemble(
        "ratings",
        train=samples(trained, nothing, trained),
        validation=samples(validated, trained, trained),
        test=samples(tested, of_both, of_both),
        class_names=items.names,
        seed=seed,
        task=replace(task, history=(1, 1 + longest)),
        inputs=Inputs((*fields, *about.fields)),
        reader=reader(of_both),
    )
    return replace(data, fingerprint=digest.hexdigest(), notes=tuple(notes))


def _cleaned(
    table: RatingTable, duplicates: Literal["last", "refuse"], min_rating: float | None
) -> tuple[RatingTable, list[str]]:
    """What counts of a table, and what is to be said of what does not."""
    notes = []
    alone = table.without_duplicates(duplicates)
    if len(alone) < len(table):
        notes.append(f"{len(table) - len(alone):,} ratings of an item rated again were left out")
    if min_rating is None:
        return alone, notes
    high = alone.take(alone.ratings >= min_rating)
    notes.append(f"{len(alone) - len(high):,} ratings below {min_rating:g} were left out")
    return high, notes


class _Numbering:
    """Numbers of names, the most frequent first."""

    def __init__(self, names: np.ndarray) -> None:
        distinct, counts = np.unique(names, return_counts=True)
        order = np.lexsort((np.arange(len(distinct)), -counts))
        self.names = tuple(distinct[order].tolist())
        self.count = len(distinct)
        self._distinct = distinct
        self._number = np.argsort(order)

    def knows(self, names: np.ndarray) -> np.ndarray:
        return np.isin(names, self._distinct)

    def __call__(self, names: np.ndarray) -> np.ndarray:
        """(n,) numbers of names that it knows."""
        return self._number[np.searchsorted(self._distinct, names)]


class _About:
    """What else is known of users: a field for each category, one for all numbers.

    Attributes:
        fields: In the order of the columns of `values`.
        values: Of each user, whole numbers.
    """

    def __init__(
        self,
        known: RatingTable,
        users: _Numbering,
        by_time: np.ndarray,
        features: Sequence[str],
        numbers: Sequence[str],
    ) -> None:
        _, latest = np.unique(users(known.users)[by_time], return_index=True)
        latest = by_time[latest]  # the row of the last rating of each user
        self.fields: list[InputField] = []
        columns = [np.zeros((users.count, 0), np.int64)]
        for name in features:
            categories, number = np.unique(known.further[name][latest], return_inverse=True)
            self.fields.append(InputField(name, "ids", (1,), len(categories)))
            columns.append(number[:, np.newaxis])
        if numbers:
            values = np.stack([known.numbers(name)[latest] for name in numbers], axis=1)
            deviation = values.std(axis=0)
            values = (values - values.mean(axis=0)) / np.where(deviation == 0, 1.0, deviation)
            self.fields.append(
                InputField("numbers", "values", (len(numbers),), multiply=_NUMBER_SCALE)
            )
            columns.append(np.round(values / _NUMBER_SCALE).astype(np.int64))
        self.values = tuple(map(tuple, np.concatenate(columns, axis=1).tolist()))


def _seen(
    test: RatingTable,
    users: _Numbering,
    items: _Numbering,
    unseen: Literal["leave_out", "refuse"],
    notes: list[str],
) -> RatingTable:
    """The test ratings whose user and item occur elsewhere too."""
    is_seen = users.knows(test.users) & items.knows(test.items)
    if is_seen.all():
        return test
    strangers = test.take(~is_seen)
    new_users = np.unique(strangers.users[~users.knows(strangers.users)])
    new_items = np.unique(strangers.items[~items.knows(strangers.items)])
    if unseen == "refuse":
        what = (
            f"user '{strangers.users[0]}'"
            if not users.knows(strangers.users[:1])[0]
            else f"item '{strangers.items[0]}'"
        )
        raise DataError(
            f"{test.file}, line {strangers.lines[0]}: {what} occurs in the test split alone, as "
            f"{len(new_users):,} users and {len(new_items):,} items do. data.unseen=leave_out "
            "leaves them out"
        )
    notes.append(
        f"{len(strangers):,} of {len(test):,} test ratings were left out, for {len(new_users):,} "
        f"users and {len(new_items):,} items occur nowhere else"
    )
    return test.take(is_seen)


def _by_user(users: np.ndarray, items: np.ndarray, count: int) -> list[np.ndarray]:
    """The items of each of `count` users, in the order given."""
    order = np.argsort(users, kind="stable")
    ends = np.cumsum(np.bincount(users, minlength=count))
    return np.split(items[order], ends[:-1])
