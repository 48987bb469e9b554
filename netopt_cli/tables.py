"""The rows of a run as a table for people: in the terminal and in metrics.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from netopt_cli.metrics import ACCURACY, metric_named, metric_of, metrics_in

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    "stage",
    "role",
    "seed",
    "labels",
    "accuracy",
    "loss",
    "params",
    "trainable_params",
    "nonzero_params",
    "sparsity",
    "macs",
    "size_bytes",
    "size_gzip_bytes",
    "size_packed_bytes",
    "latency_ms_median",
    "latency_ms_p90",
    "peak_memory_bytes",
    "parity_max_abs",
    "train_seconds",
    "trained_by",
    "control",
    "metric",
)
"""The columns of metrics.csv, of a run that classifies. `labels` counts the training samples whose
labels the run had used by then, where it has a label budget; `trained_by` says where a training was
taken over from; `control` names the row that this one is to be compared with; `metric` is the
column that counts."""

Row = dict[str, Any]


def header(rows: Sequence[Row], columns: Sequence[str] = COLUMNS) -> list[str]:
    """The columns of the table of these rows: the metrics that they have in the place of
    `accuracy`."""
    metrics = metrics_in(rows)
    return [each for name in columns for each in (metrics if name == ACCURACY else [name])]


def row_name(row: Row) -> str:
    """What `control` calls a row."""
    return row["stage"] if row["role"] != "control" else f"{row['stage']} control"


def means(row: Row) -> Row:
    """A row with the means of what is summed up over seeds, see `seed_rows.summed_up`."""
    return {name: _whole(v["mean"]) if isinstance(v, dict) else v for name, v in row.items()}


def texts(columns: Mapping[str, Callable[[Row], str]], rows: Sequence[Row]) -> dict[str, list[str]]:
    """The columns of a table by name, of the rows of one run or of rows summed up over seeds, whose
    figures are written as mean ± standard deviation."""
    return {name: [_text(text, row) for row in rows] for name, text in columns.items()}


def _text(text: Callable[[Row], str], row: Row) -> str:
    summed = {name: value for name, value in row.items() if isinstance(value, dict)}
    deviations = {name: value["sd"] or 0.0 for name, value in summed.items()}
    mean, deviation, nothing = (
        text(each) for each in (means(row), row | deviations, row | dict.fromkeys(summed, 0.0))
    )
    return with_deviation(mean, deviation, nothing)


def with_deviation(mean: str, deviation: str, nothing: str) -> str:
    """A mean with its deviation, the unit once; without one that is written as `nothing`."""
    if deviation == nothing:
        return mean
    number, _, unit = mean.rpartition(" ")
    if number and deviation.endswith(f" {unit}"):
        return f"{number} ± {deviation}"
    return f"{mean} ± {deviation}"


def _whole(value: float) -> float:
    """A mean of counts that do not differ is a count."""
    return int(value) if float(value).is_integer() else value


def bytes_text(count: float) -> str:
    return f"{count / 1000:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.2f} MB"


def count_text(count: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count:,.0f}"


_REUSED = " *"
"""Behind the time of a training that an earlier run has done."""


def score(name: str) -> Callable[[Row], str]:
    """Writes the metric of a row; nothing where the row has no figure."""
    text = metric_named(name).text
    return lambda row: "" if row.get(name) is None else text(row[name])


_COLUMNS: dict[str, Callable[[Row], str]] = {
    "sparsity": lambda row: f"{100 * row['sparsity']:.1f} %",
    "file": lambda row: bytes_text(row["size_bytes"]),
    "gzip": lambda row: bytes_text(row["size_gzip_bytes"]),
    "packed": lambda row: bytes_text(row["size_packed_bytes"]),
    "latency": lambda row: f"{row['latency_ms_median']:.4f} ms",
    "MACs": lambda row: "unknown" if row["macs"] is None else count_text(row["macs"]),
    "params": lambda row: count_text(row["params"]),
    "trained": lambda row: count_text(row["trainable_params"]),
    "memory": lambda row: bytes_text(row["peak_memory_bytes"]),
    "training": lambda row: f"{row['train_seconds']:.1f} s{_REUSED if row['trained_by'] else ''}",
    "compared with": lambda row: row["control"] or "",
}
_DISPENSABLE = (
    "trained", "memory", "params", "gzip", "training", "MACs", "compared with", "packed",
)  # fmt: skip
"""What a narrow terminal does without, in this order."""


def cells(rows: list[Row]) -> dict[str, list[str]]:
    """Returns the columns of the table by name. `change` is that of the metric, in points where it
    is a fraction, against the row that is compared with."""
    name = metric_of(rows)
    metric = metric_named(name)
    by_name = {row_name(row): row for row in rows}

    def change(row: Row) -> str:
        control = by_name.get(row["control"] or "", {})
        if row.get(name) is None or control.get(name) is None:
            return ""
        return metric.bare(row[name] - control[name], "+")

    shown = {"stage": row_name, "labels": _labels, metric.title: score(name), "change": change}
    if not any(map(_labels, rows)):
        del shown["labels"]
    return texts(shown | _COLUMNS, rows)


def _labels(row: Row) -> str:
    return "" if row.get("labels") is None else count_text(row["labels"])


def terminal(rows: list[Row], title: str, width: int) -> Table:
    """The table for a console of `width` characters, without the columns that do not fit."""
    compared = _change_note(rows) if any(row["control"] for row in rows) else ""
    return fitted(
        cells(rows),
        width,
        title=title,
        left=("stage", "compared with"),
        dispensable=_DISPENSABLE,
        more="more figures: metrics.md, metrics.csv",
        note="\n".join(filter(None, (compared, _reused_note(rows)))),
        styles=["dim" if row["role"] == "control" else None for row in rows],
    )


def fitted(
    columns: dict[str, list[str]],
    width: int,
    *,
    title: str,
    left: Sequence[str],
    dispensable: Sequence[str],
    more: str,
    styles: Sequence[str | None],
    note: str = "",
) -> Table:
    """A table for a console of `width` characters.

    Args:
        columns: The texts of each column by its name.
        left: Columns of words; the others are of figures.
        dispensable: Columns that are left out, in this order, until the table fits.
        more: Said below a table with columns left out: where they are.
        styles: Of each row.
        note: Said below the table in any case.
    """
    from rich import box
    from rich.table import Table

    columns = dict(columns)
    caption = ""
    for name in dispensable:
        # Two spaces around a text, and one between columns.
        if sum(max(map(len, [key, *texts])) + 3 for key, texts in columns.items()) <= width + 1:
            break
        del columns[name]
        caption = more
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        caption="\n".join(filter(None, (note, caption))),
        caption_justify="left",
    )
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right", overflow="fold")
    for style, *texts in zip(styles, *columns.values(), strict=True):
        table.add_row(*texts, style=style)
    return table


def markdown(rows: list[Row]) -> str:
    columns = cells(rows)
    lines = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    metric = metric_named(metric_of(rows))
    return (
        f"{table}\n\nSeed {rows[0]['seed']}. {metric.heading}, sparsity, bytes, latency (batch 1) "
        "and memory are those of the exported file; parameters and MACs those of the Keras "
        f"network. {_change_note(rows)}. One seed proves nothing.\n"
        f"{_reused_note(rows)}\n"
    ).rstrip("\n") + "\n"


def _change_note(rows: list[Row]) -> str:
    metric = metric_named(metric_of(rows))
    return f"change: {metric.of_changes} against the row compared with"


def _reused_note(rows: list[Row]) -> str:
    is_reused = any(row["trained_by"] for row in rows)
    return "* trained by an earlier run, with the same settings, data and code" if is_reused else ""
