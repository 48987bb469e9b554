"""The exits of a run's networks, one row a way through each: in the terminal and in exits.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.table import Table

from netopt_cli.tables import bytes_text, count_text, fitted, means, texts

COLUMNS = (
    "stage",
    "seed",
    "path",
    "policy",
    "threshold",
    "share",
    "accuracy",
    "macs_mean",
    "macs_median",
    "macs_max",
    "latency_ms_mean",
    "latency_ms_median",
    "latency_ms_p99",
    "latency_ms_max",
    "times_faster",
    "size_bytes",
    "timed_samples",
)
"""The columns of exits.csv. `path` is `without exits` (the same network in one file), `with exits`
(all samples), or where samples leave: `exit 1`, …, `to the end`; there `share` is that of the test
samples which do, `accuracy` and latencies are theirs, and `size_bytes` is that of the segment.
`threshold` is empty where nobody leaves; `times_faster` compares mean latencies."""

KEYS = ("stage", "path")
"""What tells the rows of a run apart."""

Row = dict[str, Any]


def _optional(text: Callable[[float], str]) -> Callable[[float | None], str]:
    return lambda value: "" if value is None else text(value)


_percent = _optional(lambda value: f"{100 * value:.2f} %")
_ms = _optional(lambda value: f"{value:.4f} ms")
_COLUMNS: dict[str, Callable[[Row], str]] = {
    "stage": lambda row: row["stage"],
    "path": lambda row: row["path"],
    "threshold": lambda row: _optional(lambda value: f"{value:.4g}")(row["threshold"]),
    "share": lambda row: _percent(row["share"]),
    "accuracy": lambda row: _percent(row["accuracy"]),
    "MACs": lambda row: count_text(row["macs_mean"]),
    "worst MACs": lambda row: count_text(row["macs_max"]),
    "mean": lambda row: _ms(row["latency_ms_mean"]),
    "median": lambda row: _ms(row["latency_ms_median"]),
    "p99": lambda row: _ms(row["latency_ms_p99"]),
    "max": lambda row: _ms(row["latency_ms_max"]),
    "faster": lambda row: _optional(lambda value: f"{value:.2f} x")(row["times_faster"]),
    "size": lambda row: bytes_text(row["size_bytes"]),
}
_DISPENSABLE = ("max", "worst MACs", "size", "median", "threshold", "MACs")
"""What a narrow terminal does without, in this order."""


def terminal(rows: list[Row], width: int) -> Table:
    """The table for a console of `width` characters, without the columns that do not fit."""
    return fitted(
        texts(_COLUMNS, rows),
        width,
        title="early exits",
        left=("stage", "path"),
        dispensable=_DISPENSABLE,
        more="more figures: exits.md, exits.csv",
        styles=["bold" if row["path"] == "with exits" else None for row in rows],
    )


def markdown(rows: list[Row]) -> str:
    columns = texts(_COLUMNS, rows)
    last = means(rows[-1])
    lines = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{table}\n\n"
        f"Policy: {last['policy']}; a sample leaves where it is not above the threshold, which "
        "was chosen on the validation split, for these files. Accuracy and shares are of the whole "
        f"test split. Latencies are wall times of its first {last['timed_samples']} samples "
        "in their order, batch 1, one by one through the exported segments: inputs, decisions and "
        "hand-over included. The network without exits, one file, ran in turns with them through "
        "the same loop. Each sample was timed five times, and the least counts.\n"
    )
