"""The rows of a run as a table for people: in the terminal and in metrics.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.table import Table

COLUMNS = (
    "stage",
    "role",
    "seed",
    "accuracy",
    "loss",
    "params",
    "nonzero_params",
    "sparsity",
    "macs",
    "size_bytes",
    "size_gzip_bytes",
    "latency_ms_median",
    "latency_ms_p90",
    "peak_memory_bytes",
    "parity_max_abs",
    "train_seconds",
    "control",
)
"""The columns of metrics.csv. `control` names the row that this one is to be compared with."""

Row = dict[str, Any]


def row_name(row: Row) -> str:
    """What `control` calls a row."""
    return row["stage"] if row["role"] != "control" else f"{row['stage']} control"


def bytes_text(count: float) -> str:
    return f"{count / 1000:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.2f} MB"


def count_text(count: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count:,.0f}"


_SHOWN: dict[str, Callable[[Row], str]] = {
    "stage": lambda row: row["stage"],
    "role": lambda row: row["role"],
    "accuracy %": lambda row: f"{100 * row['accuracy']:.2f}",
    "params": lambda row: count_text(row["params"]),
    "sparsity %": lambda row: f"{100 * row['sparsity']:.1f}",
    "MACs": lambda row: "unknown" if row["macs"] is None else count_text(row["macs"]),
    "file": lambda row: bytes_text(row["size_bytes"]),
    "gzip": lambda row: bytes_text(row["size_gzip_bytes"]),
    "latency ms": lambda row: f"{row['latency_ms_median']:.4f}",
    "memory": lambda row: bytes_text(row["peak_memory_bytes"]),
    "train s": lambda row: f"{row['train_seconds']:.1f}",
}


def cells(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the cells of the table; the last column is the change of accuracy, in
    points, against the row's control."""
    by_name = {row_name(row): row for row in rows}
    header = [*_SHOWN, "vs control"]
    body = []
    for row in rows:
        control = by_name.get(row["control"] or "")
        change = "" if control is None else _change(row, control)
        body.append([*(show(row) for show in _SHOWN.values()), change])
    return header, body


def _change(row: Row, control: Row) -> str:
    points = 100 * (row["accuracy"] - control["accuracy"])
    return f"{points:+.2f} ({row_name(control)})"


def terminal(rows: list[Row], title: str) -> Table:
    header, body = cells(rows)
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in header:
        left = name in ("stage", "role", "vs control")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for row, texts in zip(rows, body, strict=True):
        table.add_row(*texts, style="dim" if row["role"] == "control" else None)
    return table


def markdown(rows: list[Row]) -> str:
    header, body = cells(rows)
    lines = [header, ["---"] * len(header), *body]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{table}\n\nAccuracy, bytes, latency (batch 1) and memory are those of the exported file. "
        "`vs control`: points of accuracy against the row named. One seed proves nothing.\n"
    )
