"""A comparison of runs as text, Markdown, CSV or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netopt_cli import text_table
from netopt_cli.columns import describe, figure_columns, figure_text
from netopt_cli.comparing import Difference, Line
from netopt_cli.metrics import metric_named
from netopt_cli.statistics import ALPHA, FEWEST
from netopt_cli.text_table import spans

_BESIDE = ("size_bytes", "size_packed_bytes", "latency_ms_median", "macs", "params")
LEFT = ("run", "stage", "seeds", "verdict", "front", "key", "value", "lines")
DISPENSABLE = ("params", "MACs", "packed", "latency", "p", "file", "95 % interval", "seeds")


def columns(lines: Sequence[Line], cost: str) -> dict[str, list[str]]:
    """The texts of the main table by column; the lines are numbered from 1."""
    metric = lines[0].metric
    texts = {
        "#": [str(number) for number in range(1, len(lines) + 1)],
        "run": [line.group.name for line in lines],
        "stage": [line.row for line in lines],
        "seeds": [spans(list(line.group.runs)) for line in lines],
        describe(metric).title: [figure_text(metric, line.figures.get(metric)) for line in lines],
        "change": [_change(line) for line in lines],
        "95 % interval": [_interval(line) for line in lines],
        "p": [_p(line) for line in lines],
        "verdict": [_verdict(line) for line in lines],
        describe(cost).title: [figure_text(cost, line.figures.get(cost)) for line in lines],
        "x": [_times(line, cost) for line in lines],
    }
    for name in _BESIDE:
        if name != cost:
            values = [figure_text(name, line.figures.get(name)) for line in lines]
            texts[describe(name).title] = values
    return texts | {"front": ["*" if line.on_front else "" for line in lines]}


def footnotes(lines: Sequence[Line], cost: str) -> list[str]:
    """What a reader must know of the main table."""
    notes = []
    tests: dict[str, list[int]] = {}
    metric = metric_named(lines[0].metric)
    compared = [(n, line) for n, line in enumerate(lines, 1) if line.differences]
    for number, line in compared:
        found = _of_metric(line)
        if found and found.by.verdict is not None:
            tests.setdefault(found.test, []).append(number)
    if compared:
        notes.append(f"change: {metric.of_changes} against {lines[0].group.name}.")
    for test, numbers in tests.items():
        notes.append(f"verdict of {spans(numbers)}: {test}, alpha {ALPHA}.")
    if any((found := _of_metric(line)) and found.by.verdict is None for _, line in compared):
        notes.append(f"No verdict with fewer than {FEWEST} seeds on either side.")
    if any(line.on_front for line in lines):
        notes.append(f"front *: no other line is as good for less {cost} (means).")
    return notes


def config_columns(differing: dict[str, list[str]], lines: Sequence[Line]) -> dict[str, list[str]]:
    """The texts of the table of config keys: for each value the lines that have it."""
    names = list(dict.fromkeys(line.group for line in lines))
    numbers: dict[int, list[int]] = {}
    for number, line in enumerate(lines, 1):
        numbers.setdefault(names.index(line.group), []).append(number)
    rows: list[tuple[str, str, str]] = []
    for key, values in differing.items():
        for value in dict.fromkeys(values):
            having = [n for i, each in enumerate(values) if each == value for n in numbers[i]]
            is_first = not rows or all(key != row[0] for row in rows[-len(names) :])
            rows.append((key if is_first else "", value, spans(having)))
    keys, texts, having_it = zip(*rows, strict=True) if rows else ((), (), ())
    return {"key": list(keys), "value": list(texts), "lines": list(having_it)}


def as_rows(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The main table for programs: every figure, flat."""
    found = []
    for line in lines:
        row: dict[str, Any] = {
            "run": line.group.name,
            "stage": line.row,
            "role": line.role,
            "seeds": list(line.group.runs),
            "n": len(line.group.runs),
            "front": line.on_front,
        }
        for name, figure in line.figures.items():
            row[name] = _whole(figure.mean)
            row[f"{name}_sd"] = figure.sd
        for name, difference in line.differences.items():
            row |= {f"{name}_{key}": value for key, value in _flat(difference).items()}
        found.append(row)
    return found


def as_csv(lines: Sequence[Line], cost: str) -> str:
    header = ["run", "stage", "role", "seeds", "n", "front"]
    metric = lines[0].metric
    for name in figure_columns([row for line in lines for row in line.group.rows.values()]):
        header += [name, f"{name}_sd"]
        if name in (metric, cost):
            header += [f"{name}_{key}" for key in _DIFFERENCE]
    rows = [row | {"seeds": spans(row["seeds"])} for row in as_rows(lines)]
    return text_table.as_csv(rows, header)


_DIFFERENCE = ("difference", "low", "high", "p", "verdict", "test")


def _whole(value: float) -> float:
    """A count as a whole number, also where it is a mean."""
    return int(value) if float(value).is_integer() else value


def _flat(difference: Difference) -> dict[str, Any]:
    by = difference.by
    values = (by.difference, by.low, by.high, by.p, by.verdict, difference.test)
    return dict(zip(_DIFFERENCE, values, strict=True))


def _of_metric(line: Line) -> Difference | None:
    """What the metric that counts differs by."""
    return line.differences.get(line.metric)


def _change(line: Line) -> str:
    found = _of_metric(line)
    return metric_named(line.metric).bare(found.by.difference, "+") if found else ""


def _interval(line: Line) -> str:
    found = _of_metric(line)
    if not found or found.by.low is None or found.by.high is None:
        return ""
    text = metric_named(line.metric).bare
    return f"{text(found.by.low, '+')} … {text(found.by.high, '+')}"


def _p(line: Line) -> str:
    found = _of_metric(line)
    return "" if not found or found.by.p is None else f"{found.by.p:.2g}"


def _verdict(line: Line) -> str:
    found = _of_metric(line)
    return (found.by.verdict or "") if found else ""


def _times(line: Line, cost: str) -> str:
    """The cost as a multiple of that of the row compared with."""
    found = line.differences.get(cost)
    if not found:
        return ""
    mine = line.figures[cost].mean
    theirs = mine - found.by.difference
    return f"{mine / theirs:.2f}" if theirs else ""
