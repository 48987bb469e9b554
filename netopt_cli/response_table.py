"""What layers answered to being cut alone: the tables of `netopt sensitivity`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from netopt_cli.metrics import Metric, metric_named, metric_of
from netopt_cli.tables import count_text

COLUMNS = (
    "technique",
    "layer",
    "level",
    "params",
    "macs_share",
    "loss",
    "accuracy",
    "drop",
    "metric",
)
"""The columns of sensitivity.csv, of a network that classifies. `level` counts as in
`graph.response`; `params` and `macs_share` are the layer's weights and its part of the network's
MACs before the cut; `drop` is what is lost of the column that `metric` names: of accuracy, as a
fraction. Both, and the loss, are those of the validation samples."""

Row = dict[str, Any]

LEVELS = {
    "prune": "share of weights set to zero",
    "structured": "share of channels set to zero",
    "rank": "share of the full rank left",
    "bits": "bits a weight",
}
"""What the levels of a technique count."""

_NOTABLE, _BAD = 0.01, 0.05
"""What is lost: of a fraction in points, of a plain number as a part of it."""


def level_text(technique: str, level: float) -> str:
    return f"{level:g}" if technique == "bits" else f"{100 * level:g} %"


def lost(metric: Metric) -> str:
    """What a table counts: `points of accuracy lost`, or of what people want less `RMSE gained`."""
    what = f"points of {metric.title}" if metric.is_fraction else metric.title
    return f"{what} {'lost' if metric.higher_is_better else 'gained'}"


def drop(metric: Metric, uncut: float, still: float) -> float:
    """What a network has lost by a cut, in the unit of the metric: more is worse."""
    return metric.goodness(uncut) - metric.goodness(still)


def severity(row: Row) -> float:
    """What a cut has lost: of a fraction as such, of a plain number as a part of the uncut one."""
    name = metric_of([row])
    metric = metric_named(name)
    if metric.is_fraction:
        return float(row["drop"])
    uncut = abs(metric.goodness(row[name]) + row["drop"])
    return float(row["drop"] / uncut) if uncut else 0.0


def title(technique: str, metric: Metric) -> str:
    """What the columns of a technique's table count."""
    return f"{technique}: {lost(metric)}, by {LEVELS[technique]}"


def by_technique(rows: list[Row]) -> dict[str, dict[str, list[Row]]]:
    """Returns technique -> layer -> its rows, mildest level first, all in the order of `rows`."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        found.setdefault(row["technique"], {}).setdefault(row["layer"], []).append(row)
    return found


def most_sensitive_first(layers: dict[str, list[Row]]) -> list[tuple[str, list[Row]]]:
    """Sorts layers by their mean loss, which is finer than the metric; no number is the worst."""

    def sensitivity(layer: tuple[str, list[Row]]) -> float:
        mean = fmean(row["loss"] for row in layer[1])
        return math.inf if math.isnan(mean) else mean

    return sorted(layers.items(), key=sensitivity, reverse=True)


def terminal(rows: list[Row], width: int) -> Iterator[Table]:
    """Yields a table a technique for a console of `width` characters."""
    metric = metric_named(metric_of(rows))
    for technique, layers in by_technique(rows).items():
        levels = [row["level"] for row in next(iter(layers.values()))]
        heading = title(technique, metric)
        table = Table(
            title=heading,
            title_justify="left",
            title_style="bold",
            header_style="bold",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            min_width=min(width, len(heading)),
        )
        table.add_column("layer", overflow="fold")
        facts = width >= 40 + 9 * len(levels)
        for name in [*(("params", "MACs") if facts else ()), *_headers(technique, levels)]:
            table.add_column(name, justify="right")
        for layer, found in most_sensitive_first(layers):
            texts = [Text(metric.bare(row["drop"]), style=_style(severity(row))) for row in found]
            table.add_row(layer, *(_facts(found[0]) if facts else ()), *texts)
        yield table


def markdown(rows: list[Row], uncut: Row) -> str:
    """The tables for sensitivity.md.

    Args:
        uncut: `loss`, the metric and `samples` of the network as it is.
    """
    name = metric_of(rows)
    metric = metric_named(name)
    parts = [
        f"The network as it is: {metric.title} {metric.text(uncut[name])}, loss "
        f"{uncut['loss']:.4f} nats on {uncut['samples']:,} validation samples. Each figure "
        "is of that network with one layer alone cut, and not trained again; the most sensitive "
        "layer (mean loss) comes first.\n"
    ]
    for technique, layers in by_technique(rows).items():
        levels = [row["level"] for row in next(iter(layers.values()))]
        header = ["layer", "params", "MACs", *_headers(technique, levels)]
        lines = [header, ["---"] * len(header)]
        lines += [
            [layer, *_facts(found[0]), *(metric.bare(row["drop"]) for row in found)]
            for layer, found in most_sensitive_first(layers)
        ]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"## {title(technique, metric)}\n\n{table}\n")
    return "\n".join(parts)


def _headers(technique: str, levels: list[float]) -> list[str]:
    return [level_text(technique, level) for level in levels]


def _facts(row: Row) -> list[str]:
    share = row["macs_share"]
    return [count_text(row["params"]), "unknown" if share is None else f"{100 * share:.1f} %"]


def _style(severe: float) -> str:
    return "red" if severe >= _BAD else "yellow" if severe >= _NOTABLE else ""
