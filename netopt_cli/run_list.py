"""The runs in a folder as lines of a list: read, chosen, sorted."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from netopt_cli.columns import FIGURES, LATENCY_RATIO, is_figure, number, resolve
from netopt_cli.errors import InputError, RecordError
from netopt_cli.metrics import ACCURACY, metric_of, metrics_in
from netopt_cli.records import StoredRun, find, last_row
from netopt_cli.run_dir import RECORD
from netopt_cli.text_table import spans

Line = dict[str, Any]

_WORDS = ("run", "status", "started", "arch", "data", "opt", "seed", "stage")
COLUMNS = (*_WORDS, ACCURACY, *(n for n in FIGURES if n != LATENCY_RATIO), "error", "metric")
"""What a line may have, and any metric. The figures are those of the last stage; of several seeds,
their means."""


def lines(folder: Path) -> Iterator[Line]:
    """A line for each run in `folder`; for each seed, when `folder` is a parent of several."""
    if not folder.is_dir():
        raise RecordError(f"'{folder}' is not a folder; `netopt train` makes runs/")
    for path in _folders(folder):
        name = path.relative_to(folder).as_posix() if path != folder else folder.name
        try:
            yield {"run": name} | _line(StoredRun(path))
        except RecordError as error:
            status = "broken" if (path / RECORD).exists() else "no record"
            yield {"run": name, "status": status, "error": str(error)}


def _folders(folder: Path) -> Iterator[Path]:
    for path in find(folder):
        if path == folder and (path / RECORD).exists():
            run = StoredRun(path)
            yield from (each.folder for each in run.members())
        else:
            yield path


def metrics_of(found: Iterable[Line]) -> list[str]:
    """The metrics that count in these runs."""
    return list(dict.fromkeys(line["metric"] for line in found if line.get("metric"))) or [ACCURACY]


def header(found: Iterable[Line]) -> list[str]:
    """The columns of these lines: the metrics that they have in the place of `accuracy`."""
    judged = [line for line in found if line.get("metric")]
    metrics = dict.fromkeys(name for line in judged for name in metrics_in([line])) or [ACCURACY]
    return [each for name in COLUMNS for each in (metrics if name == ACCURACY else [name])]


def _line(run: StoredRun) -> Line:
    last = last_row(run.rows) or {}
    figures = {name: number(value) for name, value in last.items() if is_figure(name)}
    return {
        "status": run.status,
        "started": run.started and run.started.isoformat(timespec="seconds"),
        "arch": run.arch,
        "data": run.data,
        "opt": ",".join(run.stages) or "none",
        "seed": spans(run.seeds),
        "stage": last.get("stage"),
        "wall_seconds": number(run.get("wall_seconds", object)),
        "error": run.get("error", str),
        "metric": metric_of([last]) if last else None,
    } | figures


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, "==": operator.eq,
    ">": operator.gt, "<": operator.lt, "=": operator.eq,
}  # fmt: skip
_CONDITION = re.compile(r"\s*([\w@]+)\s*(>=|<=|!=|==|>|<|=)\s*(.*?)\s*")


@dataclass(frozen=True)
class Condition:
    """A comparison of a column with a value, as `accuracy>0.97`; numbers with numbers, otherwise
    text with text. A line without the column does not meet it."""

    column: str
    sign: str
    value: float | str

    @classmethod
    def read(cls, text: str) -> Condition:
        """Reads `COLUMN SIGN VALUE`.

        Raises:
            InputError: It is not of that form, or the column is unknown or no number.
        """
        found = _CONDITION.fullmatch(text)
        if found is None or not found[3]:
            raise InputError(
                f"a condition is COLUMN, one of {' '.join(_OPERATORS)}, and VALUE, as "
                f"'accuracy>0.97'. Received: '{text}'"
            )
        column = resolve(found[1], COLUMNS)
        if not is_figure(column):
            return cls(column, found[2], found[3])
        try:
            return cls(column, found[2], float(found[3]))
        except ValueError as error:
            raise InputError(
                f"'{column}' is compared with a number, as 0.97 or 1e6. Received: '{found[3]}'"
            ) from error

    def __call__(self, line: Line) -> bool:
        value = line.get(self.column)
        return value is not None and _OPERATORS[self.sign](value, self.value)


def has_stages(line: Line, wanted: str) -> bool:
    """Whether a run had all the stages of `wanted`, as `prune,quantize`."""
    return set(_stages(wanted)) <= set(_stages(line.get("opt", "")))


def _stages(text: str) -> list[str]:
    return [name.strip() for name in text.strip("[]").split(",") if name.strip()]


_AGES = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime) -> datetime:
    """A moment that a person has written: a date, with or without a time, or an age as `2d`.

    Raises:
        InputError: It is neither.
    """
    age = re.fullmatch(r"(\d{1,5})([mhdw])", text)
    if age:
        return now - timedelta(**{_AGES[age[2]]: int(age[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            "--since takes a date, as 2026-11-24 or 2026-11-24T12:30, or an age, as 30m, 12h, 2d "
            f"or 1w. Received: '{text}'"
        ) from error
    return found if found.tzinfo else found.astimezone()


def began_after(line: Line, since: datetime) -> bool:
    started = line.get("started")
    return started is not None and datetime.fromisoformat(started) >= since


def ordered(found: list[Line], column: str, *, reverse: bool = False) -> list[Line]:
    """Sorted by a column; lines without it come last either way."""
    having = [line for line in found if line.get(column) is not None]
    having.sort(key=lambda line: line[column], reverse=reverse)
    return having + [line for line in found if line.get(column) is None]
