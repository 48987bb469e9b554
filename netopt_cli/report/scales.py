"""From figures to pixels: scales with round ticks, and the frame around a diagram."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from netopt_cli.metrics import Metric
from netopt_cli.report.drawing import Drawing, Label, Line

LEFT, RIGHT, TOP, BOTTOM = 62, 14, 30, 40
"""The pixels around a diagram, for its texts."""

_LOG_FROM = 4.0
"""Figures that differ by a larger factor than this are shown on a logarithmic scale."""


_TINY = 1e-30
"""What is below has no place on a logarithmic scale."""


@dataclass(frozen=True)
class Scale:
    """A figure's place on an axis.

    Attributes:
        low: The figure at pixel `start`.
        high: The figure at pixel `end`.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log(max(value, _TINY)), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round figures between the ends, three to six."""
        if self.is_log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1, 2, 5), (1, 3), (1,)):
                found = [n * 10.0**k for k in decades for n in digits]
                found = [value for value in found if self.low <= value <= self.high]
                if len(found) <= 6:
                    break
            return found
        rough = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(n * power for n in (1, 2, 5, 10) if n * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [(first + number) * step for number in range(count)]


def scale(values: Sequence[float], start: float, end: float, *, may_be_log: bool = False) -> Scale:
    """A scale that holds the values with a margin; logarithmic when they are far apart."""
    low, high = min(values), max(values)
    if may_be_log and low > _TINY and high / low > _LOG_FROM:
        room = (high / low) ** 0.12
        return Scale(low / room, high * room, start, end, is_log=True)
    room = (high - low) * 0.12 or abs(high) * 0.1 or 0.1
    return Scale(low - room, high + room, start, end)


def frame(
    drawing: Drawing,
    x: Scale,
    y: Scale,
    *,
    x_text: Callable[[float], str],
    y_text: Callable[[float], str],
    x_title: str = "",
) -> None:
    """Draws title, grid and ticks, those of x where there is a text for them."""
    drawing.add(Label(LEFT, 16, drawing.title, 12.5, is_bold=True))
    for tick in y.ticks():
        drawing.add(
            Line(((x.start, y(tick)), (x.end, y(tick)))),
            Label(x.start - 7, y(tick) + 3.5, y_text(tick), 10.5, "end", "muted"),
        )
    for tick in x.ticks():
        if text := x_text(tick):
            drawing.add(
                Line(((x(tick), y.start), (x(tick), y.start + 4)), "muted"),
                Label(x(tick), y.start + 16, text, 10.5, "middle", "muted"),
            )
    drawing.add(
        Line(((x.start, y.start), (x.end, y.start)), "muted"),
        Label(x.end, y.start + 32, x_title, 10.5, "end", "muted"),
    )


def short(value: float) -> str:
    """A round figure without the zeros that say nothing."""
    return f"{value:.4g}"


def short_percent(value: float) -> str:
    return f"{100 * value:.4g} %"


def score_text(metric: Metric) -> Callable[[float], str]:
    """Writes the ticks of a metric."""
    return short_percent if metric.is_fraction else short
