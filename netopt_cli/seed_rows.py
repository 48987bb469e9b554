"""The rows of several seeds as one table: means with intervals, and tests between the rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from netopt_cli.columns import describe, figure_columns
from netopt_cli.statistics import Summary, paired, summary
from netopt_cli.tables import Row, row_name

Runs = Mapping[int, Sequence[Row]]
"""The rows of completed runs by seed."""

Compared = dict[str, Any]
"""One test, see `comparisons`."""

_NOT_COMPARED = ("trainable_params", "sparsity", "parity_max_abs", "train_seconds")
"""What was trained, how far rounding goes and how long a stage took are not what a network is
better by, and sparsity is `nonzero_params` again."""


def summed_up(
    runs: Runs, seeds: Sequence[int], keys: Sequence[str] = ("stage", "role")
) -> list[Row]:
    """A row for each (stage, role), or what else tells rows apart, of the runs, in their order.

    A column of figures holds `mean`, `sd`, `n`, `low`, `high` (see `statistics.Summary`) and
    `values`, one for each of `seeds`: null where that seed has none. Of a column of words that
    differ between seeds, all are named; one of yes and no is a yes where every seed says so.
    """
    by_seed = {
        seed: {tuple(row[key] for key in keys): row for row in rows} for seed, rows in runs.items()
    }
    places = dict.fromkeys(place for rows in by_seed.values() for place in rows)
    found = []
    for place in places:
        rows = [by_seed.get(seed, {}).get(place, {}) for seed in seeds]
        columns = dict.fromkeys(column for row in rows for column in row if column != "seed")
        found.append({name: _cell([row.get(name) for row in rows]) for name in columns})
    return found


def summary_of(cell: Any) -> Summary | None:
    """The summary in a cell of a row; None where no seed has a figure."""
    if not isinstance(cell, dict):
        return None
    return Summary(**{name: cell[name] for name in ("mean", "sd", "n", "low", "high")})


def comparisons(runs: Runs) -> list[Compared]:
    """The tests of every row but the baseline: against its control, and against the baseline.

    Paired over the seeds that have both rows; a control is compared with the baseline alone. Each
    has `stage` (the name of the row), `against` (`control` or `baseline`), `metric`, and what
    `statistics.Comparison` has. Figures that no seed has in both rows are left out.
    """
    by_seed = {seed: {row_name(row): row for row in rows} for seed, rows in runs.items()}
    names = dict.fromkeys(name for rows in by_seed.values() for name in rows)
    columns = figure_columns([row for rows in runs.values() for row in rows])
    compared = [column for column in columns if column not in _NOT_COMPARED]
    found = []
    for name in names:
        for against in ("control", "baseline"):
            pairs = list(_pairs(name, against, by_seed))
            for metric in compared:
                test = _test([(a.get(metric), b.get(metric)) for a, b in pairs], metric)
                if test is not None:
                    found.append({"stage": name, "against": against, "metric": metric} | test)
    return found


def _pairs(
    name: str, against: str, by_seed: Mapping[int, Mapping[str, Row]]
) -> Iterator[tuple[Row, Row]]:
    """The row of that name and the one that it is compared with, of each seed that has both."""
    for rows in by_seed.values():
        row = rows.get(name)
        if row is None or row["role"] == "baseline":
            continue
        if against == "control":
            other = None if row["role"] == "control" else rows.get(row["control"] or "")
        else:
            other = next((each for each in rows.values() if each["role"] == "baseline"), None)
        if other is not None:
            yield row, other


def _test(pairs: Sequence[tuple[Any, Any]], metric: str) -> dict[str, Any] | None:
    known = [(a, b) for a, b in pairs if _is_figure(a) and _is_figure(b)]
    if not known:
        return None
    first, second = zip(*known, strict=True)
    return asdict(paired(first, second, higher_is_better=describe(metric).higher_is_better))


def _cell(values: Sequence[Any]) -> Any:
    figures = [value for value in values if _is_figure(value)]
    if figures:
        kept = [value if _is_figure(value) else None for value in values]
        return asdict(summary(figures)) | {"values": kept}
    answers = [value for value in values if isinstance(value, bool)]
    if answers:
        return all(answers)
    words = dict.fromkeys(value for value in values if isinstance(value, str))
    return ", ".join(words) or None


def _is_figure(value: Any) -> bool:
    """Whether a cell of one run holds a number that can be averaged."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)
