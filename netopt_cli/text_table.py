"""Tables as plain text: a thousand lines are printed at once, which Rich takes seconds for."""

from __future__ import annotations

import csv
import io
import os
import shutil
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

_GAP = "  "


def terminal_width() -> int | None:
    """The characters of a line of the terminal; None in a pipe, which has no width."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return None
    return shutil.get_terminal_size().columns


def aligned(
    columns: Mapping[str, Sequence[str]],
    *,
    left: Collection[str],
    width: int | None = None,
    dispensable: Iterable[str] = (),
) -> str:
    """The columns side by side, below their names and a line.

    Args:
        columns: The texts of each column by its name.
        left: Columns of words; the others are of figures.
        width: Characters that a line may have.
        dispensable: Columns that are left out, in this order, until the lines fit.
    """
    kept = {name: [plain(text) for text in texts] for name, texts in columns.items()}
    widths = {name: max(map(len, [name, *texts])) for name, texts in kept.items()}
    for name in dispensable:
        if width is None or sum(widths.values()) + len(_GAP) * (len(widths) - 1) <= width:
            break
        widths.pop(name, None)
    sides = {name: "<" if name in left else ">" for name in widths}

    def line(texts: Iterable[str]) -> str:
        cells = zip(texts, widths.items(), strict=True)
        return _GAP.join(f"{text:{sides[name]}{size}}" for text, (name, size) in cells).rstrip()

    rows = zip(*(kept[name] for name in widths), strict=True)
    rule = "─" * (sum(widths.values()) + len(_GAP) * (len(widths) - 1))
    return "\n".join([line(widths), rule, *map(line, rows)]) + "\n"


def markdown(columns: Mapping[str, Sequence[str]]) -> str:
    lines = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return plain(text).replace("|", r"\|")


def as_csv(rows: Sequence[Mapping[str, Any]], header: Sequence[str]) -> str:
    """The rows as CSV; what a row does not have is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def spans(numbers: list[int]) -> str:
    """Whole numbers in short: `0-4` or `0,3,7`."""
    parts: list[list[int]] = []
    for each in sorted(numbers):
        if parts and each == parts[-1][-1] + 1:
            parts[-1].append(each)
        else:
            parts.append([each])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts)


def plain(text: str) -> str:
    """Without the characters that steer a terminal: a record may be a stranger's."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
