"""Learning curves: a diagram of the metric and one of loss for the baseline and for each stage."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from netopt_cli.columns import describe
from netopt_cli.metrics import find, is_metric
from netopt_cli.records import StoredRun
from netopt_cli.report import palette
from netopt_cli.report.drawing import Dot, Drawing, Line
from netopt_cli.report.scales import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    frame,
    scale,
    score_text,
    short,
)
from netopt_cli.report.subject import Subject, finite

_SIZE = (275, 200)
_MOST_EPOCHS = 100_000
_BASELINE = "baseline"
_LOSS = "loss"

Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Training:
    """The epochs of one training of one seed: by column, (epoch, value).

    Attributes:
        curves: Of the losses and the metrics, in the order of history.csv.
    """

    name: str
    seed: int
    curves: dict[str, Curve]


def of_run(subject: Subject) -> list[Drawing]:
    families: dict[str, list[Training]] = defaultdict(list)
    stages = subject.run.stages
    for seed, run in subject.runs.items():
        for training in read(run, seed):
            families[_family(training.name, stages)].append(training)
    colours = {entry.name: entry.colour for entry in subject.entries.values()}
    found = []
    for name, trainings in families.items():
        for measure in _measures(trainings):
            colour = colours.get(name, palette.BASELINE)
            if drawn := _draw(name, trainings, measure, colour):
                found.append(drawn)
    return found


def read(run: StoredRun, seed: int) -> Iterator[Training]:
    """The trainings in the history of a run, in their order; none where it has no history."""
    path = run.folder / "history.csv"
    found: dict[str, dict[str, Curve]] = {}
    for row in _rows(path):
        epoch = _number(row.get("epoch"))
        curves = found.setdefault(row.get("stage") or "", defaultdict(list))
        for column, text in row.items():
            value = _number(text) if _is_curve(column) else None
            if epoch is not None and value is not None:
                curves[column].append((epoch, value))
    for name, curves in found.items():
        yield Training(name, seed, curves)


def _is_curve(column: str | None) -> bool:
    measure = (column or "").removeprefix("val_")
    return measure == _LOSS or is_metric(measure)


def _measures(trainings: Sequence[Training]) -> list[str]:
    """What there are curves of, the loss last."""
    columns = [column.removeprefix("val_") for each in trainings for column in each.curves]
    return sorted(dict.fromkeys(columns), key=lambda measure: measure == _LOSS)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            if number == _MOST_EPOCHS:
                return
            yield row


def _number(text: str | None) -> float | None:
    try:
        return finite(float(text or ""))
    except (TypeError, ValueError):
        return None


def _family(name: str, stages: Sequence[str]) -> str:
    """The stage that a training belongs to: `prune` for `prune control`."""
    owners = [stage for stage in stages if name == stage or name.startswith(f"{stage} ")]
    return max(owners, key=len, default=name)


def _draw(name: str, trainings: list[Training], measure: str, colour: str) -> Drawing | None:
    """Validation in full, training faint; the control grey and dashed, with other trainings, as of
    a teacher, grey. Each seed has its line."""
    own = (f"val_{measure}", measure)
    lines = [
        (training, column, training.curves[column])
        for training in trainings
        for column in own
        if training.curves.get(column)
    ]
    if not lines:
        return None
    width, height = _SIZE
    drawing = Drawing(width, height, f"{name}: {describe(measure).title}")
    epochs = [epoch for _, _, curve in lines for epoch, _ in curve]
    x = scale([*epochs, min(epochs) + 1], LEFT, width - RIGHT)
    y = scale([value for _, _, curve in lines for _, value in curve], height - BOTTOM, TOP)
    metric = find(measure)
    text = score_text(metric) if metric else short
    frame(drawing, x, y, x_text=_whole, y_text=text, x_title="epoch")
    for training, column, curve in lines:
        is_validation = column == own[0]
        line = Line(
            tuple((x(epoch), y(value)) for epoch, value in curve),
            colour if training.name == name else palette.CONTROL,
            2.0 if is_validation else 1.0,
            is_dashed=training.name != name,
            opacity=1.0 if is_validation else 0.5,
        )
        # A line of one point would not be seen.
        drawing.add(line if len(curve) > 1 else Dot(*line.points[0], line.colour, line.width + 1))
    return drawing


def _whole(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else ""
