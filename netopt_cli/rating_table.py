"""Ratings as a table: a CSV read, checked line by line, and one row for each user and item."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from netopt_cli.errors import DataError, did_you_mean
from netopt_cli.readers import require_file


@dataclass(frozen=True, eq=False)
class RatingTable:
    """Who rated what, how and when, in the order of the file.

    Attributes:
        file: Where it was read.
        users, items: (n,) names, str.
        ratings: (n,) float64; 1 where the file has none.
        times: (n,) float64; the place in the file where it has none.
        lines: (n,) numbers of the lines of the file, from 1.
        further: Other columns by name, (n,) str.
    """

    file: Path
    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    times: np.ndarray
    lines: np.ndarray
    further: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.users)

    def take(self, chosen: np.ndarray) -> RatingTable:
        """The rows of a mask, or of indices."""
        return replace(
            self,
            users=self.users[chosen],
            items=self.items[chosen],
            ratings=self.ratings[chosen],
            times=self.times[chosen],
            lines=self.lines[chosen],
            further={name: column[chosen] for name, column in self.further.items()},
        )

    def digest(self) -> hashlib._Hash:
        """SHA-256 of the content."""
        digest = hashlib.sha256()
        columns = [self.users, self.items, *(self.further[name] for name in sorted(self.further))]
        for names in columns:
            digest.update("\0".join(names).encode())
        for values in (self.ratings, self.times):
            digest.update(values.tobytes())
        return digest

    def numbers(self, column: str) -> np.ndarray:
        """(n,) float64 of a further column.

        Raises:
            DataError: A cell is not a number; its line is named.
        """
        return _numbers(self.file, column, self.further[column], self.lines)

    def without_duplicates(self, rule: Literal["last", "refuse"]) -> RatingTable:
        """One row for each user and item: `last` keeps the latest, and the later line of two of
        one time.

        Raises:
            DataError: `refuse`, and there are two; both lines are named.
        """
        pairs = _pair_numbers(self)
        by_time = np.lexsort((np.arange(len(self)), self.times))
        _, first = np.unique(pairs[by_time[::-1]], return_index=True)
        kept = np.sort(by_time[::-1][first])
        if len(kept) == len(self) or rule == "last":
            return self.take(kept)
        again = int(np.setdiff1d(np.arange(len(self)), kept)[0])
        same = np.flatnonzero(pairs == pairs[again])
        raise DataError(
            f"{self.file}, line {self.lines[same[1]]}: user '{self.users[again]}' has rated item "
            f"'{self.items[again]}' before, in line {self.lines[same[0]]}. "
            "data.duplicates=last lets the latest count"
        )


def read_ratings(
    path: str,
    *,
    columns: Sequence[str] | None,
    delimiter: str,
    user: str,
    item: str,
    rating: str | None,
    timestamp: str | None,
    further: Sequence[str] = (),
) -> RatingTable:
    """Reads a CSV of ratings in UTF-8, quoted or not; empty lines are left out.

    Args:
        columns: Names of the columns of a file that does not begin with them.
        delimiter: One character.
        user, item, rating, timestamp: Names of columns; None where the file has none.
        further: Other columns to keep.

    Raises:
        DataError: The file is missing or malformed; the line is named.
    """
    file = require_file(path)
    if len(delimiter) != 1:
        raise DataError(f"data.delimiter must be one character. Received: {delimiter!r}")
    rows, lines = _rows(file, delimiter)
    if columns is None and rows:
        columns = [name.strip() for name in rows.pop(0)]
        del lines[0]
    if not rows or not columns:
        raise DataError(f"{file} has no ratings.")
    wanted = [name for name in (user, item, rating, timestamp, *further) if name is not None]
    for name in wanted:
        if name not in columns:
            raise DataError(
                f"{file} has no column '{name}'.{did_you_mean(name, columns)} It has: "
                f"{', '.join(columns)}. data.user_column, item_column, rating_column and "
                "timestamp_column name them (null: there is none), data.columns all of a file "
                "without a first line of names"
            )
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(columns):
            raise DataError(
                f"{file}, line {line}: needs {len(columns)} cells ({', '.join(columns)}). "
                f"Received: {len(row)}."
            )
    cells = {
        name: np.array([row[columns.index(name)].strip() for row in rows], dtype=str)
        for name in wanted
    }
    numbers = np.array(lines)
    for name in (user, item):
        _require(file, cells[name] != "", numbers, f"'{name}' is empty")
    return RatingTable(
        file,
        users=cells[user],
        items=cells[item],
        ratings=_numbers(file, rating, cells[rating], numbers) if rating else np.ones(len(rows)),
        times=(
            _numbers(file, timestamp, cells[timestamp], numbers)
            if timestamp
            else np.arange(len(rows), dtype=np.float64)
        ),
        lines=numbers,
        further={name: cells[name] for name in further},
    )


def _rows(file: Path, delimiter: str) -> tuple[list[list[str]], list[int]]:
    """The rows of a CSV that are not empty, and the line that each begins in."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}, line {line}: is not UTF-8 ({error.reason}).") from error
    except OSError as error:
        raise DataError(f"Cannot read {file}: {error.strerror}") from error
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    rows, lines, line = [], [], 1
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{file}, line {line}: {error}.") from error
    return rows, lines


def _numbers(file: Path, name: str, cells: np.ndarray, lines: np.ndarray) -> np.ndarray:
    def number(cell: str) -> float:
        try:
            return float(cell)
        except ValueError:
            return np.nan

    values = np.array([number(cell) for cell in cells], dtype=np.float64)
    _require(file, np.isfinite(values), lines, f"'{name}' must be a finite number", cells)
    return values


def _require(
    file: Path, holds: np.ndarray, lines: np.ndarray, rule: str, cells: np.ndarray | None = None
) -> None:
    if holds.all():
        return
    at = int(np.argmin(holds))
    received = "" if cells is None else f" Received: {str(cells[at])!r:.80}."
    raise DataError(f"{file}, line {lines[at]}: {rule}.{received}")


def _pair_numbers(table: RatingTable) -> np.ndarray:
    """(n,) int64: the same number for the same user and item."""
    _, users = np.unique(table.users, return_inverse=True)
    names, items = np.unique(table.items, return_inverse=True)
    return users.astype(np.int64) * len(names) + items
