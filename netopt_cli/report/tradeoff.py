"""The trade-off: the metric against what a network costs, one diagram a cost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from netopt_cli.columns import describe
from netopt_cli.metrics import metric_named
from netopt_cli.report.drawing import Dot, Drawing, Label, Line
from netopt_cli.report.scales import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Scale,
    frame,
    scale,
    score_text,
    short,
)
from netopt_cli.report.subject import Entry, Subject
from netopt_cli.statistics import Summary

COSTS = ("size_bytes", "size_packed_bytes", "latency_ms_median")
_SIZE = (372, 300)
_TITLES = {
    "size_bytes": ("the file", "kB"),
    "size_packed_bytes": ("the packed file", "kB"),
    "latency_ms_median": ("latency", "ms, batch 1"),
}
_UNITS = {"kB": 1000.0}


@dataclass(frozen=True)
class _Point:
    """A row in the diagram: its summaries, and how it is drawn."""

    name: str
    colour: str
    is_hollow: bool
    score: Summary
    cost: Summary
    to: str | None
    """The point that a dashed line leads to."""


def of_run(subject: Subject) -> list[Drawing]:
    """The baseline and the stages, joined in their order, each with a dashed line to its control;
    bars are 95 % intervals over the seeds."""
    entries = list(subject.entries.values())
    line = [entry.name for entry in subject.main_line]
    score = subject.score
    return [
        drawn
        for cost in COSTS
        if (drawn := _draw(_points(entries, score, cost), score, cost, line))
    ]


def of_runs(points: Sequence[tuple[str, Entry]], score: str, front: Sequence[str]) -> list[Drawing]:
    """A point for each run, by its name; those on the front of the metric and the file are joined.

    Args:
        score: The name of the metric that counts in all of them.
    """
    found = []
    for cost in COSTS:
        named = [
            _Point(name, entry.colour, False, entry.figures[score], entry.figures[cost], None)
            for name, entry in points
            if {score, cost} <= entry.figures.keys()
        ]
        named.sort(key=lambda point: point.cost.mean)
        joined = [p.name for p in named if p.name in front] if cost == COSTS[0] else []
        if drawn := _draw(named, score, cost, joined):
            found.append(drawn)
    return found


def _points(entries: Sequence[Entry], score: str, cost: str) -> list[_Point]:
    return [
        _Point(
            each.name, each.colour, each.is_control, each.figures[score], each.figures[cost],
            each.control if each.role == "stage" else None,
        )
        for each in entries
        if {score, cost} <= each.figures.keys()
    ]  # fmt: skip


def _draw(points: Sequence[_Point], score: str, cost: str, line: Sequence[str]) -> Drawing | None:
    if not points:
        return None
    metric = metric_named(score)
    title, unit = _TITLES[cost]
    divisor = _UNITS.get(unit, 1.0)
    width, height = _SIZE
    better = "" if metric.higher_is_better else " (less is better)"
    drawing = Drawing(width, height, f"{metric.heading} against {title}{better}")
    costs = [value / divisor for point in points for value in _ends(point.cost)]
    x = scale(costs, LEFT, width - RIGHT - 12, may_be_log=True)
    scores = [value for point in points for value in _ends(point.score)]
    y = scale(scores, height - BOTTOM, TOP)
    frame(drawing, x, y, x_text=short, y_text=score_text(metric), x_title=unit)
    at = {point.name: (x(point.cost.mean / divisor), y(point.score.mean)) for point in points}
    joined = tuple(at[name] for name in line if name in at)
    if len(joined) > 1:
        drawing.add(Line(joined, "muted", 1.5))
    for point in points:
        if point.to in at and point.to not in line:
            drawing.add(Line((at[point.name], at[point.to]), "muted", 1.0, is_dashed=True))
        _add_bars(drawing, point, x, y, divisor)
    for point in points:
        where = at[point.name]
        text = describe(cost).text(point.cost.mean)
        told = f"{point.name}: {metric.text(point.score.mean)}, {text}"
        radius = 3.5 if point.is_hollow else 5.5
        drawing.add(Dot(*where, point.colour, radius, point.is_hollow, told))
    _add_names(drawing, points, at)
    return drawing


def _ends(figure: Summary) -> tuple[float, ...]:
    """The mean and the ends of its interval; a cost is above 0, whatever an interval says."""
    ends = (figure.mean, figure.low, figure.high)
    return tuple(end for end in ends if end is not None and (end > 0 or figure.mean <= 0))


def _add_bars(drawing: Drawing, point: _Point, x: Scale, y: Scale, divisor: float) -> None:
    at = (x(point.cost.mean / divisor), y(point.score.mean))
    low, high = point.score.low, point.score.high
    if low is not None and high is not None:
        drawing.add(Line(((at[0], y(low)), (at[0], y(high))), point.colour, 1.5, opacity=0.7))
    low, high = point.cost.low, point.cost.high
    if low is not None and high is not None and high > low > 0:
        ends = ((x(low / divisor), at[1]), (x(high / divisor), at[1]))
        drawing.add(Line(ends, point.colour, 1.5, opacity=0.7))


_LETTER = 6.1
"""The width of a letter at size 11, about."""


def _add_names(
    drawing: Drawing, points: Sequence[_Point], at: dict[str, tuple[float, float]]
) -> None:
    """Writes each name beside its point, where it covers the least; main points first."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in at.values()]
    taken += [
        (x - 2, y - 2, x + 2, y + 2)
        for mark in drawing.marks
        if isinstance(mark, Line) and mark.colour != "faint"
        for x, y in _along(mark)
    ]
    for point in sorted(points, key=lambda point: point.is_hollow):
        x, y = at[point.name]
        length = _LETTER * len(point.name)
        places = [
            (x + 9, y + 4, "start"), (x - 9, y + 4, "end"), (x, y - 10, "middle"),
            (x, y + 18, "middle"), (x + 8, y - 8, "start"), (x - 8, y - 8, "end"),
            (x + 8, y + 16, "start"), (x - 8, y + 16, "end"),
            (x, y - 23, "middle"), (x, y + 31, "middle"),
        ]  # fmt: skip
        boxes = [_box(*place, length) for place in places]
        costs = [_cost(box, taken, drawing) + 0.01 * n for n, box in enumerate(boxes)]
        best = costs.index(min(costs))
        taken.append(boxes[best])
        label_x, label_y, anchor = places[best]
        colour = "muted" if point.is_hollow else point.colour
        drawing.add(Label(label_x, label_y, point.name, 11, anchor, colour, not point.is_hollow))


def _along(line: Line) -> Iterator[tuple[float, float]]:
    """Points of a line, some four pixels apart."""
    for (x1, y1), (x2, y2) in itertools.pairwise(line.points):
        steps = int(max(abs(x2 - x1), abs(y2 - y1)) / 4) + 1
        for n in range(steps + 1):
            yield x1 + (x2 - x1) * n / steps, y1 + (y2 - y1) * n / steps


Rectangle = tuple[float, float, float, float]


def _box(x: float, y: float, anchor: str, length: float) -> Rectangle:
    left = {"start": x, "middle": x - length / 2, "end": x - length}[anchor]
    return (left, y - 10, left + length, y + 3)


def _cost(box: Rectangle, taken: Sequence[Rectangle], drawing: Drawing) -> float:
    """The pixels that a name would share with others, or lose outside the picture."""
    shared = 0.0
    for other in taken:
        across = min(box[2], other[2]) - max(box[0], other[0])
        down = min(box[3], other[3]) - max(box[1], other[1])
        shared += max(across, 0) * max(down, 0)
    outside = max(LEFT - box[0], 0) + max(box[2] - drawing.width, 0)
    outside += max(22 - box[1], 0) + max(box[3] - (drawing.height - BOTTOM), 0)
    return shared + 30 * outside
