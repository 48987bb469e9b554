"""A comparison of runs as text, Markdown, CSV or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netopt_cli import text_table
from netopt_cli.columns import METRICS, describe
from netopt_cli.comparing import Difference, Line
from netopt_cli.statistics import ALPHA, FEWEST, Summary
from netopt_cli.text_table import spans

_BESIDE = ("size_bytes", "size_packed_bytes", "latency_ms_median", "macs", "params")
LEFT = ("run", "stage", "seeds", "verdict", "front", "key", "value", "lines")
DISPENSABLE = ("params", "MACs", "packed", "latency", "p", "file", "95 % interval", "seeds")


def columns(lines: Sequence[Line], cost: str) -> dict[str, list[str]]:
    """The texts of the main table by column; the lines are numbered from 1."""
    texts = {
        "#": [str(number) for number in range(1, len(lines) + 1)],
        "run": [line.group.name for line in lines],
        "stage": [line.row for line in lines],
        "seeds": [spans(list(line.group.runs)) for line in lines],
        "accuracy": [figure_text("accuracy", line.figures.get("accuracy")) for line in lines],
        "change": [_points(line) for line in lines],
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


def figure_text(column: str, figure: Summary | None) -> str:
    """A mean, with the deviation where there is one."""
    if figure is None:
        return ""
    text = describe(column).text
    if not figure.sd or text(figure.sd) == text(0):
        return text(figure.mean)
    number, _, unit = text(figure.mean).rpartition(" ")
    if not number or not text(figure.sd).endswith(f" {unit}"):
        return f"{text(figure.mean)} ± {text(figure.sd)}"
    return f"{number} ± {text(figure.sd).removesuffix(f' {unit}')} {unit}"


def footnotes(lines: Sequence[Line], cost: str) -> list[str]:
    """What a reader must know of the main table."""
    notes = []
    tests: dict[str, list[int]] = {}
    compared = [(n, line.differences) for n, line in enumerate(lines, 1) if line.differences]
    for number, differences in compared:
        if "accuracy" in differences and differences["accuracy"].by.verdict is not None:
            tests.setdefault(differences["accuracy"].test, []).append(number)
    if compared:
        notes.append(f"change: points of accuracy against {lines[0].group.name}.")
    for test, numbers in tests.items():
        notes.append(f"verdict of {spans(numbers)}: {test}, alpha {ALPHA}.")
    if any("accuracy" in each and each["accuracy"].by.verdict is None for _, each in compared):
        notes.append(f"No verdict with fewer than {FEWEST} seeds on either side.")
    if any(line.on_front for line in lines):
        notes.append(f"front *: no other line is as accurate for less {cost} (means).")
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
    for name in METRICS:
        header += [name, f"{name}_sd"]
        if name in ("accuracy", cost):
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


def _points(line: Line) -> str:
    found = line.differences.get("accuracy")
    return f"{100 * found.by.difference:+.2f}" if found else ""


def _interval(line: Line) -> str:
    found = line.differences.get("accuracy")
    if not found or found.by.low is None or found.by.high is None:
        return ""
    return f"{100 * found.by.low:+.2f} … {100 * found.by.high:+.2f}"


def _p(line: Line) -> str:
    found = line.differences.get("accuracy")
    return "" if not found or found.by.p is None else f"{found.by.p:.2g}"


def _verdict(line: Line) -> str:
    found = line.differences.get("accuracy")
    return (found.by.verdict or "") if found else ""


def _times(line: Line, cost: str) -> str:
    """The cost as a multiple of that of the row compared with."""
    found = line.differences.get(cost)
    if not found:
        return ""
    mine = line.figures[cost].mean
    theirs = mine - found.by.difference
    return f"{mine / theirs:.2f}" if theirs else ""
