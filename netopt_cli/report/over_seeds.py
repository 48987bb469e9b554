"""Rows of the further tables of a run, as that of its exits, over the seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from netopt_cli.report.subject import Subject, finite
from netopt_cli.statistics import Summary, summary
from netopt_cli.tables import with_deviation


@dataclass(frozen=True)
class SeedRows:
    """One row of a table, as each of the seeds has it."""

    rows: list[dict[str, Any]]

    def word(self, column: str) -> str:
        return str(self.rows[0].get(column, ""))

    def holds(self, column: str) -> bool:
        """Whether every seed says yes."""
        return all(row.get(column) is True for row in self.rows)

    def figure(self, column: str) -> Summary | None:
        values = [v for row in self.rows if (v := finite(row.get(column))) is not None]
        return summary(values) if values else None

    def text(self, column: str, text: Callable[[float], str]) -> str:
        """The mean with its deviation; nothing where there is no figure."""
        found = self.figure(column)
        return with_deviation(text(found.mean), text(found.sd or 0.0), text(0.0)) if found else ""


def rows_of(subject: Subject, table: str, keys: Sequence[str]) -> list[SeedRows]:
    """The rows of a table of the record, in its order.

    Args:
        keys: Columns that tell the rows of a run apart.
    """
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in subject.runs.values():
        for row in run.get(table, list) or []:
            if isinstance(row, dict):
                found.setdefault(tuple(str(row.get(key)) for key in keys), []).append(row)
    return [SeedRows(rows) for rows in found.values()]
