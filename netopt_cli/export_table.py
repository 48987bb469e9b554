"""The exported files of a run, one row a stage and format: in the terminal and in exports.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

from rich.table import Table

from netopt_cli.metrics import metric_named, metric_of
from netopt_cli.tables import bytes_text, fitted, means, score, texts

COLUMNS = (
    "stage",
    "seed",
    "format",
    "scheme",
    "runtime",
    "version",
    "accuracy",
    "size_bytes",
    "size_gzip_bytes",
    "latency_ms_median",
    "latency_ms_p90",
    "peak_memory_bytes",
    "parity_max_abs",
    "fastest",
)
"""The columns of exports.csv, of a run that classifies. `fastest` is true for the file of the stage
with the least median."""

KEYS = ("stage", "format", "scheme")
"""What tells the rows of a run apart."""

Row = dict[str, Any]


_COLUMNS: dict[str, Callable[[Row], str]] = {
    "size": lambda row: bytes_text(row["size_bytes"]),
    "gzip": lambda row: bytes_text(row["size_gzip_bytes"]),
    "latency": lambda row: f"{row['latency_ms_median']:.4f} ms",
    "p90": lambda row: f"{row['latency_ms_p90']:.4f} ms",
    "memory": lambda row: bytes_text(row["peak_memory_bytes"]),
    "parity": lambda row: f"{row['parity_max_abs']:.2g}",
    "runtime": lambda row: f"{row['runtime']} {row['version']}",
    "": lambda row: "fastest" if row["fastest"] else "",
}
_DISPENSABLE = ("runtime", "memory", "p90", "parity", "gzip", "scheme")
"""What a narrow terminal does without, in this order."""


def _texts(rows: list[Row]) -> dict[str, list[str]]:
    """The columns of the table by name."""
    name = metric_of(rows)
    first: dict[str, Callable[[Row], str]] = {key: itemgetter(key) for key in KEYS}
    return texts({**first, metric_named(name).title: score(name), **_COLUMNS}, rows)


def with_fastest(rows: list[Row]) -> list[Row]:
    """Adds to the rows of stages the column `fastest`."""
    fastest: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: means(row)["latency_ms_median"]):
        fastest.setdefault(row["stage"], row)
    return [row | {"fastest": row is fastest[row["stage"]]} for row in rows]


def fastest_lines(rows: list[Row]) -> Iterator[str]:
    """One line a stage: which of its files is the fastest."""
    for row in rows:
        if row["fastest"]:
            yield (
                f"fastest export of {row['stage']}: {row['format']} ({row['scheme']}) "
                f"{means(row)['latency_ms_median']:.4f} ms"
            )


def terminal(rows: list[Row], width: int) -> Table:
    """The table for a console of `width` characters, without the columns that do not fit."""
    return fitted(
        _texts(rows),
        width,
        title="exported files",
        left=("stage", "format", "scheme", "runtime", ""),
        dispensable=_DISPENSABLE,
        more="more figures: exports.md, exports.csv",
        styles=["bold" if row["fastest"] else None for row in rows],
    )


def markdown(rows: list[Row]) -> str:
    columns = _texts(rows)
    lines = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    fastest = "\n".join(f"- {line}" for line in fastest_lines(rows))
    return (
        f"{table}\n\n{fastest}\n\n"
        "Each file was loaded, compared with its network, scored and timed (batch 1) by its own "
        "runtime. The size of a directory, and its gzip, is the sum over its files. A file that "
        "says float32 is no quantized one, whatever the stage before it. Latencies are of one "
        "process each: differences of a few per cent are noise.\n"
    )
