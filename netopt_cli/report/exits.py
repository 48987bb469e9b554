"""Where the samples leave a network with early exits."""

from __future__ import annotations

from netopt_cli.columns import percent_text
from netopt_cli.report import palette
from netopt_cli.report.drawing import Box, Drawing, Label, Line
from netopt_cli.report.over_seeds import SeedRows
from netopt_cli.tables import count_text

_LEFT, _WIDTH, _ROW = 90, 600, 30


def draw(rows: list[SeedRows]) -> Drawing | None:
    """A bar for each exit: how many samples leave there, how many of them are right, at what
    cost; means over the seeds."""
    exits = [(row, found.mean) for row in rows if (found := row.figure("share"))]
    if not exits:
        return None
    most = max(share for _, share in exits) or 1.0
    drawing = Drawing(_WIDTH, 34 + _ROW * len(exits), "Where samples leave")
    drawing.add(Label(_LEFT, 16, drawing.title, 12.5, is_bold=True))
    for number, (row, share) in enumerate(exits):
        y = 30.0 + _ROW * number
        length = share / most * 200
        told = f"{percent_text(share)} of the samples"
        if accuracy := row.figure("accuracy"):
            told += f", {percent_text(accuracy.mean)} right"
        if macs := row.figure("macs_mean"):
            told += f", {count_text(macs.mean)} MACs"
        drawing.add(
            Label(_LEFT - 8, y + 14, row.word("path"), 11, "end", "muted"),
            Box(_LEFT, y, length, 20, palette.series(number), 0.85),
            Label(_LEFT + length + 7, y + 14, told, 10.5),
        )
    drawing.add(Line(((_LEFT, 26.0), (_LEFT, 32.0 + _ROW * len(exits))), "muted"))
    return drawing
