"""The table of several seeds: in the terminal, as Markdown and as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from netopt_cli import text_table
from netopt_cli.columns import describe, figure_columns, figure_text
from netopt_cli.metrics import find, metric_named, metric_of
from netopt_cli.seed_rows import Compared, summary_of
from netopt_cli.statistics import ALPHA, FEWEST, PAIRED_TEST
from netopt_cli.tables import Row, fitted, row_name
from netopt_cli.text_table import spans

if TYPE_CHECKING:
    from rich.console import RenderableType

_FIGURES = (
    "sparsity", "size_bytes", "size_gzip_bytes", "size_packed_bytes", "latency_ms_median", "macs",
    "params", "peak_memory_bytes", "train_seconds",
)  # fmt: skip
_DISPENSABLE = (
    "memory", "params", "gzip", "training", "MACs", "compared with", "p", "latency", "packed",
    "against baseline", "sparsity", "file", "95 % interval",
)  # fmt: skip
"""What a narrow terminal does without, in this order."""

_SMALL_P = 0.0001
_DIFFERENCES = (
    "loss", "nonzero_params", "macs", "size_bytes", "size_packed_bytes",
    "latency_ms_median", "peak_memory_bytes",
)  # fmt: skip
"""The figures whose differences are in metrics.md, after those of the metric that counts;
metrics.csv has all."""

_STATISTICS = ("n", "mean", "sd", "low", "high")
_TEST = ("difference", "low", "high", "p", "verdict")
CSV_COLUMNS = (
    "stage", "role", "control", "metric", *_STATISTICS,
    *(f"{against}_{name}" for against in ("control", "baseline") for name in _TEST),
)  # fmt: skip
"""The columns of metrics.csv: a line for each row and figure."""


def terminal(record: Mapping[str, Any], title: str, width: int) -> Iterator[RenderableType]:
    """The table and its footnotes, for a console of `width` characters."""
    from rich.text import Text

    rows = record["rows"]
    if rows:
        yield fitted(
            cells(rows, record["comparisons"]),
            width,
            title=title,
            left=("stage", "verdict", "against baseline", "compared with"),
            dispensable=_DISPENSABLE,
            more="more figures: metrics.md, metrics.csv",
            styles=["dim" if row["role"] == "control" else None for row in rows],
        )
    for note in footnotes(record):
        yield Text(note)  # not a str, in which Rich would read [brackets]


def cells(rows: Sequence[Row], tests: Sequence[Compared]) -> dict[str, list[str]]:
    """The columns of the table by name. `change` is that of the metric, in points where it is a
    fraction, against the row compared with, and `p` and `verdict` are those of its test."""
    name = metric_of(rows)
    metric = metric_named(name)
    own = [
        _test(tests, row, "control" if row["role"] != "control" else "baseline", name)
        for row in rows
    ]
    scores = [summary_of(row.get(name)) for row in rows]
    columns = {
        "stage": [row_name(row) for row in rows],
        "n": [str(each.n) if each else "0" for each in scores],
        metric.title: [figure_text(name, each) for each in scores],
        "95 % interval": [
            f"{metric.bare(each.low)} … {metric.bare(each.high)}"
            if each and each.low is not None and each.high is not None
            else ""
            for each in scores
        ],
        "change": [metric.bare(test["difference"], "+") if test else "" for test in own],
        "p": [_p(test) for test in own],
        "verdict": [test["verdict"] or "" if test else "" for test in own],
        "against baseline": [
            (_test(tests, row, "baseline", name) or {}).get("verdict") or "" for row in rows
        ],
    }
    for column in _FIGURES:
        columns[describe(column).title] = [
            figure_text(column, summary_of(row.get(column))) or "unknown" for row in rows
        ]
    return columns | {"compared with": [row["control"] or "" for row in rows]}


def footnotes(record: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the table, failed seeds first."""
    seeds, failed = record["seeds"], record["failed"]
    metric = metric_of(record["rows"])
    scores = [summary_of(row.get(metric)) for row in record["rows"]]
    known = max((each.n for each in scores if each), default=0)
    notes = [f"{name} failed and is left out: {message}" for name, message in failed.items()]
    waiting = len(seeds) - known - len(failed)
    if waiting:
        notes.append(f"{waiting} of the {len(seeds)} seeds did not end.")
    if not record["rows"]:
        return notes
    notes.append(f"{spread_note(seeds)}; 95 % interval of the mean by Student's t.")
    if known < FEWEST:
        notes.append(f"No verdict with fewer than {FEWEST} seeds.")
    elif len(record["rows"]) > 1:
        notes.append(
            f"change: {metric_named(metric).of_changes} against the row compared with. Verdict: "
            f"{PAIRED_TEST}, alpha {ALPHA}, each by itself."
        )
    return notes


def markdown(record: Mapping[str, Any]) -> str:
    """metrics.md: the table, the footnotes, and every difference that there is."""
    rows, tests = record["rows"], record["comparisons"]
    name = metric_of(rows)
    different = [
        test
        for column in (name, *_DIFFERENCES)
        for test in tests
        if test["metric"] == column and (test["difference"] or test["low"] != test["high"])
    ]
    parts = [text_table.markdown(cells(rows, tests)), "\n\n".join(footnotes(record)) + "\n"]
    parts.append(
        f"{metric_named(name).heading}, sparsity, bytes, latency (batch 1) and memory are those of "
        "the exported files; parameters and MACs those of the Keras networks.\n"
    )
    if different:
        parts.append("Differences, with their 95 % intervals; figures that do not differ are left "
                     "out:\n")  # fmt: skip
        parts.append(text_table.markdown(_differences(different)))
    return "\n".join(parts)


def csv(rows: Sequence[Row], tests: Sequence[Compared]) -> str:
    """metrics.csv: a line for each row and figure, with the tests of those that are compared."""
    lines = []
    columns = figure_columns(rows)
    for row in rows:
        for metric in columns:
            figure = row.get(metric)
            if not isinstance(figure, dict):
                continue
            line = {"stage": row["stage"], "role": row["role"], "control": row["control"]}
            line |= {"metric": metric} | {name: _rounded(figure[name]) for name in _STATISTICS}
            for against in ("control", "baseline"):
                test = _test(tests, row, against, metric)
                if test:
                    line |= {f"{against}_{name}": _rounded(test[name]) for name in _TEST}
            lines.append(line)
    return text_table.as_csv(lines, CSV_COLUMNS)


def figures_csv(rows: Sequence[Row], keys: Sequence[str], columns: Sequence[str]) -> str:
    """A table of one run over seeds, as CSV: a line for each row and figure.

    Args:
        keys: What tells its rows apart.
        columns: Its columns.
    """
    lines = [
        {key: row[key] for key in keys}
        | {"metric": metric}
        | {name: _rounded(row[metric][name]) for name in _STATISTICS}
        for row in rows
        for metric in columns
        if isinstance(row.get(metric), dict)
    ]
    return text_table.as_csv(lines, [*keys, "metric", *_STATISTICS])


def spread_note(seeds: Sequence[int]) -> str:
    """What the cells of a table over seeds are."""
    return f"Mean ± sample standard deviation of seeds {spans(list(seeds))}"


def _test(tests: Sequence[Compared], row: Row, against: str, metric: str) -> Compared | None:
    wanted = (row_name(row), against, metric)
    return next((t for t in tests if (t["stage"], t["against"], t["metric"]) == wanted), None)


def _differences(tests: Sequence[Compared]) -> dict[str, list[str]]:
    return {
        "figure": [describe(test["metric"]).title for test in tests],
        "stage": [test["stage"] for test in tests],
        "against": [test["against"] for test in tests],
        "difference": [_signed(test["metric"], test["difference"]) for test in tests],
        "95 % interval": [
            ""
            if test["low"] is None
            else f"{_signed(test['metric'], test['low'])} … {_signed(test['metric'], test['high'])}"
            for test in tests
        ],
        "p": [_p(test) for test in tests],
        "n": [str(test["n"]) for test in tests],
        "verdict": [test["verdict"] or "" for test in tests],
    }


def _signed(metric: str, value: float) -> str:
    task_metric = find(metric)
    if task_metric is not None:
        return task_metric.amount(value, "+")
    return ("-" if value < 0 else "+") + describe(metric).text(abs(value))


def _p(test: Compared | None) -> str:
    if test is None or test["p"] is None:
        return ""
    return f"{test['p']:.2g}" if test["p"] >= _SMALL_P else f"<{_SMALL_P:g}"


def _rounded(value: Any) -> Any:
    """Seven significant digits, as the tables of one run have; a mean of counts may be whole."""
    if not isinstance(value, float):
        return value
    return int(value) if value.is_integer() else float(f"{value:.7g}")
