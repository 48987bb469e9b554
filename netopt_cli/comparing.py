"""Runs side by side: figures over seeds, differences to the first, Pareto front, configs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netopt_cli.columns import describe, figure_columns
from netopt_cli.errors import RecordError, did_you_mean
from netopt_cli.metrics import metric_named
from netopt_cli.run_groups import Group, require_comparable
from netopt_cli.statistics import (
    PAIRED_TEST,
    WELCH_TEST,
    Comparison,
    Summary,
    paired,
    summary,
    welch,
)


@dataclass(frozen=True)
class Difference:
    """What a row differs by from the row that it is compared with.

    Attributes:
        test: What the verdict is by.
    """

    by: Comparison
    test: str


@dataclass
class Line:
    """A stage of a group of seeds.

    Attributes:
        group: Its runs.
        row: The stage's row, as `prune` or `prune control`.
        role: Its role.
        figures: By column; without those that a seed has no value of.
        differences: To the row of the first group, for the metric and the cost.
        on_front: Whether no other line is as good in metric and cost and better in one.
    """

    group: Group
    row: str
    role: str
    figures: dict[str, Summary]
    differences: dict[str, Difference]
    on_front: bool = False

    @property
    def metric(self) -> str:
        """The name of the metric that counts, the same for all lines of a comparison."""
        return self.group.metric


def compare(groups: Sequence[Group], stage: str, cost: str) -> list[Line]:
    """The lines of a comparison.

    Args:
        stage: `last`, `all`, or the name of a row; groups that lack it have no line.
        cost: The column of the Pareto front beside the metric.

    Raises:
        RecordError: No group has that stage, with the nearest one.
        InputError: Their figures must not be compared, see `run_groups`.
    """
    chosen = [(group, row) for group in groups for row in _rows(group, stage)]
    if not chosen:
        known = {row for group in groups for row in group.rows}
        raise RecordError(
            f"no run has a stage '{stage}'.{did_you_mean(stage, {'last', 'all', *known})}"
        )
    first = chosen[0][0]
    for group, _ in chosen:
        require_comparable(first, first.name, group, group.name)
    found = []
    for group, row in chosen:
        other = row if stage != "last" else chosen[0][1]
        compared = group is not first and other in first.rows
        found.append(
            Line(
                group,
                row,
                group.rows[row]["role"],
                _figures(group, row),
                _differences(group, row, first, other, (group.metric, cost)) if compared else {},
            )
        )
    _mark_front(found, cost)
    return found


def _rows(group: Group, stage: str) -> list[str]:
    if stage == "all":
        return list(group.rows)
    if stage == "last":
        return [] if group.last is None else [group.last]
    return [stage] if stage in group.rows else []


def _figures(group: Group, row: str) -> dict[str, Summary]:
    found = {}
    for column in figure_columns([group.rows[row]]):
        values = group.values(row, column)
        if len(values) == len(group.runs):
            found[column] = summary(list(values.values()))
    return found


def _differences(
    group: Group, row: str, first: Group, other: str, columns: Sequence[str]
) -> dict[str, Difference]:
    found = {}
    for column in dict.fromkeys(columns):
        mine, theirs = group.values(row, column), first.values(other, column)
        if not mine or not theirs:
            continue
        higher = describe(column).higher_is_better
        values, others = list(mine.values()), list(theirs.values())
        if mine.keys() == theirs.keys() and group.any.fingerprint == first.any.fingerprint:
            by = paired(values, others, higher_is_better=higher)
            found[column] = Difference(by, PAIRED_TEST)
        else:
            by = welch(values, others, higher_is_better=higher)
            found[column] = Difference(by, WELCH_TEST)
    return found


def _mark_front(lines: Sequence[Line], cost: str) -> None:
    """Marks the lines that no other one dominates, by their means."""
    points = [
        (line, metric_named(line.metric).goodness(line.figures[line.metric].mean),
         line.figures[cost].mean)
        for line in lines
        if {line.metric, cost} <= line.figures.keys()
    ]  # fmt: skip
    for line, good, price in points:
        line.on_front = not any(
            g >= good and p <= price and (g > good or p < price) for _, g, p in points
        )


_MISSING = "-"


def config_differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """The keys in which groups differ, and what each group has: of the config, then of the data,
    the code and the machine.

    A key that a group lacks is no difference by itself: that the group has another stage or arch,
    or an older version, is one, and tells of all its keys.
    """
    flat = [_settings(group) for group in groups]
    found = {}
    for key in dict.fromkeys(key for each in flat for key in each):
        values = {str(each[key]) for each in flat if key in each}
        some_lack_it = any(key not in each for each in flat) and key.endswith("._target_")
        if len(values) + some_lack_it > 1:
            found[key] = [str(each.get(key, _MISSING)) for each in flat]
    return found


def _settings(group: Group) -> dict[str, Any]:
    config = group.config
    stages = config.pop("opt", None) or {}
    settings = {"opt": ",".join(stages) or "none"} | dict(_flat(config))
    for key, value in _flat(stages, "opt."):
        if not key.endswith("._target_"):
            settings[key] = value
    return settings | _circumstances(group)


def _circumstances(group: Group) -> dict[str, Any]:
    run = group.any
    environment = run.get("environment", dict) or {}
    git = run.get("git", dict) or {}
    return {
        "data fingerprint": run.fingerprint[:12],
        "git commit": str(git.get("commit", _MISSING))[:12],
        "processor": f"{environment.get('processor', '')}, {environment.get('cores', '')} cores",
    } | {f"version of {k}": v for k, v in (environment.get("packages") or {}).items()}


def _flat(node: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found
