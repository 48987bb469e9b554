"""Where the samples leave a network with early exits."""

from __future__ import annotations

from typing import Any

from netopt_cli.columns import percent_text
from netopt_cli.report import palette
from netopt_cli.report.drawing import Box, Drawing, Label, Line
from netopt_cli.report.subject import Subject, finite
from netopt_cli.statistics import summary
from netopt_cli.tables import count_text

_LEFT, _WIDTH, _ROW = 90, 600, 30


def rows_of(subject: Subject) -> list[dict[str, Any]]:
    """The ways through the networks with exits, with the means over the seeds of their figures."""
    by_way: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in subject.runs.values():
        for row in run.get("exits", list) or []:
            if isinstance(row, dict):
                by_way.setdefault((str(row.get("stage")), str(row.get("path"))), []).append(row)
    found = []
    for (stage, path), rows in by_way.items():
        means: dict[str, Any] = {"stage": stage, "path": path}
        for column in rows[0]:
            values = [v for row in rows if (v := finite(row.get(column))) is not None]
            if values and column not in means:
                means[column] = summary(values).mean
        found.append(means)
    return found


def draw(rows: list[dict[str, Any]]) -> Drawing | None:
    """A bar for each exit: how many samples leave there, how many of them are right, at what
    cost."""
    exits = [row for row in rows if "share" in row]
    if not exits:
        return None
    most = max(row["share"] for row in exits) or 1.0
    drawing = Drawing(_WIDTH, 34 + _ROW * len(exits), "Where samples leave")
    drawing.add(Label(_LEFT, 16, drawing.title, 12.5, is_bold=True))
    for number, row in enumerate(exits):
        y = 30.0 + _ROW * number
        length = row["share"] / most * 200
        told = f"{percent_text(row['share'])} of the samples"
        if "accuracy" in row:
            told += f", {percent_text(row['accuracy'])} right"
        if "macs_mean" in row:
            told += f", {count_text(row['macs_mean'])} MACs"
        drawing.add(
            Label(_LEFT - 8, y + 14, row["path"], 11, "end", "muted"),
            Box(_LEFT, y, length, 20, palette.series(number), 0.85),
            Label(_LEFT + length + 7, y + 14, told, 10.5),
        )
    drawing.add(Line(((_LEFT, 26.0), (_LEFT, 32.0 + _ROW * len(exits))), "muted"))
    return drawing
