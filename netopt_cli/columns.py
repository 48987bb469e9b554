"""What the columns of figures mean: which way is better, and how a person reads a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from netopt_cli.errors import InputError, did_you_mean
from netopt_cli.metrics import find, find_title, is_metric
from netopt_cli.statistics import Summary
from netopt_cli.tables import COLUMNS, Row, bytes_text, count_text, header, with_deviation


@dataclass(frozen=True)
class Column:
    """A column of figures.

    Attributes:
        title: What a table calls it.
        text: A value for a person.
        higher_is_better: Which way is better.
        is_fraction: Whether its changes are told in points; they are in per cent otherwise.
    """

    title: str
    text: Callable[[float], str]
    higher_is_better: bool = False
    is_fraction: bool = False


def percent_text(value: float) -> str:
    return f"{100 * value:.2f} %"


def _ms(value: float) -> str:
    return f"{value:.4f} ms"


def _seconds(value: float) -> str:
    return f"{value:.1f} s"


def _ratio(value: float) -> str:
    return f"{value:.3f} x"


def _number(value: float) -> str:
    return f"{value:.4g}"


LATENCY_RATIO = "latency_ratio"
"""The median latency, the least of the seeds, divided by that of another row of the same run: the
same on a machine twice as slow. Computed where it is needed; in no table of a run."""

FIGURES = {
    "labels": Column("labels", count_text),
    "loss": Column("loss", _number),
    "params": Column("params", count_text),
    "trainable_params": Column("trained", count_text),
    "nonzero_params": Column("nonzero", count_text),
    "sparsity": Column("sparsity", percent_text, higher_is_better=True, is_fraction=True),
    "macs": Column("MACs", count_text),
    "size_bytes": Column("file", bytes_text),
    "size_gzip_bytes": Column("gzip", bytes_text),
    "size_packed_bytes": Column("packed", bytes_text),
    "latency_ms_median": Column("latency", _ms),
    "latency_ms_p90": Column("latency p90", _ms),
    LATENCY_RATIO: Column("latency ratio", _ratio),
    "peak_memory_bytes": Column("memory", bytes_text),
    "parity_max_abs": Column("parity", _number),
    "train_seconds": Column("training", _seconds),
    "wall_seconds": Column("time", _seconds),
}
"""The figures of any run, beside the metrics of its task."""

COSTS = tuple(name for name in COLUMNS if name in FIGURES)
"""Those of them that are in metrics.csv."""

_SHORT = {
    "latency": "latency_ms_median",
    "latency_ms": "latency_ms_median",
    "packed_bytes": "size_packed_bytes",
    "gzip_bytes": "size_gzip_bytes",
    "memory": "peak_memory_bytes",
} | {column.title: name for name, column in FIGURES.items()}


def figure_columns(rows: Sequence[Row]) -> list[str]:
    """The columns of figures in metrics.csv of these rows, the metric that counts first."""
    return [name for name in header(rows) if is_figure(name)]


def is_figure(name: str) -> bool:
    return name in FIGURES or is_metric(name)


def describe(name: str) -> Column:
    """The column of that name; one that netopt does not know is a number, the less the better."""
    metric = find(name)
    if metric is not None:
        return Column(metric.title, metric.text, metric.higher_is_better, metric.is_fraction)
    return FIGURES.get(name, Column(name, _number))


def resolve(word: str, known: Iterable[str] = COLUMNS) -> str:
    """The name of a column that a person has written: `latency_ms` is `latency_ms_median`, and
    `NDCG@10` is `ndcg_at_10`. Any metric is one.

    Raises:
        InputError: It is none of `known`, with the nearest one.
    """
    names = set(known)
    if word not in names and (metric := find_title(word)):
        return metric
    found = word if word in names else _SHORT.get(word, word)
    if found not in names:
        raise InputError(f"unknown column '{word}'.{did_you_mean(word, names)}")
    return found


def figure_text(column: str, figure: Summary | None) -> str:
    """A mean, with the deviation where there is one."""
    if figure is None:
        return ""
    text = describe(column).text
    return with_deviation(text(figure.mean), text(figure.sd or 0), text(0))


def number(value: Any) -> float | None:
    """The number in a cell, the mean in one that sums up several seeds; None of anything else."""
    if isinstance(value, dict):
        value = value.get("mean")
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
