"""The exported files of a run, one row a stage and format: in the terminal and in exports.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rich import box
from rich.table import Table

from netopt_cli.tables import bytes_text

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
"""The columns of exports.csv. `fastest` is true for the file of the stage with the least median."""

Row = dict[str, Any]

_COLUMNS: dict[str, Callable[[Row], str]] = {
    "stage": lambda row: row["stage"],
    "format": lambda row: row["format"],
    "scheme": lambda row: row["scheme"],
    "accuracy": lambda row: f"{100 * row['accuracy']:.2f} %",
    "size": lambda row: bytes_text(row["size_bytes"]),
    "gzip": lambda row: bytes_text(row["size_gzip_bytes"]),
    "latency": lambda row: f"{row['latency_ms_median']:.4f} ms",
    "p90": lambda row: f"{row['latency_ms_p90']:.4f} ms",
    "memory": lambda row: bytes_text(row["peak_memory_bytes"]),
    "parity": lambda row: f"{row['parity_max_abs']:.2g}",
    "runtime": lambda row: f"{row['runtime']} {row['version']}",
    "": lambda row: "fastest" if row["fastest"] else "",
}
_LEFT = ("stage", "format", "scheme", "runtime", "")
_DISPENSABLE = ("runtime", "memory", "p90", "parity", "gzip", "scheme")
"""What a narrow terminal does without, in this order."""


def with_fastest(rows: list[Row]) -> list[Row]:
    """Adds to the rows of one stage the column `fastest`."""
    fastest = min(rows, key=lambda row: row["latency_ms_median"])
    return [row | {"fastest": row is fastest} for row in rows]


def fastest_lines(rows: list[Row]) -> Iterator[str]:
    """One line a stage: which of its files is the fastest."""
    for row in rows:
        if row["fastest"]:
            yield (
                f"fastest export of {row['stage']}: {row['format']} ({row['scheme']}) "
                f"{row['latency_ms_median']:.4f} ms"
            )


def terminal(rows: list[Row], width: int) -> Table:
    """The table for a console of `width` characters, without the columns that do not fit."""
    columns = {name: [text(row) for row in rows] for name, text in _COLUMNS.items()}
    for dispensable in _DISPENSABLE:
        # Two spaces around a text, and one between columns.
        if sum(max(map(len, [name, *texts])) + 3 for name, texts in columns.items()) <= width + 1:
            break
        del columns[dispensable]
    table = Table(
        title="exported files",
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        caption="" if len(columns) == len(_COLUMNS) else "more figures: exports.md, exports.csv",
        caption_justify="left",
    )
    for name in columns:
        table.add_column(name, justify="left" if name in _LEFT else "right", overflow="fold")
    for row, *texts in zip(rows, *columns.values(), strict=True):
        table.add_row(*texts, style="bold" if row["fastest"] else None)
    return table


def markdown(rows: list[Row]) -> str:
    columns = {name: [text(row) for row in rows] for name, text in _COLUMNS.items()}
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
