"""Pictures of a few kinds of marks, as SVG in a page or a file of its own, and as PNG.

Colours are names of `palette`, so that a picture in a page follows the page into the dark.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from netopt_cli.report import palette
from netopt_cli.report.markup import Markup, element, joined
from netopt_cli.text_table import plain

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line through points."""

    points: tuple[Point, ...]
    colour: str = "faint"
    width: float = 1.0
    is_dashed: bool = False
    opacity: float = 1.0


@dataclass(frozen=True)
class Box:
    """A rectangle; `title` is shown under the mouse."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    opacity: float = 1.0
    title: str = ""


@dataclass(frozen=True)
class Dot:
    """A point, filled or hollow; `title` is shown under the mouse."""

    x: float
    y: float
    colour: str
    radius: float = 5.0
    is_hollow: bool = False
    title: str = ""


@dataclass(frozen=True)
class Label:
    """A line of text; `anchor` says what of it is at x: start, middle or end."""

    x: float
    y: float
    text: str
    size: float = 11.0
    anchor: str = "start"
    colour: str = "ink"
    is_bold: bool = False


Mark = Line | Box | Dot | Label


@dataclass
class Drawing:
    """A picture of `width` x `height` pixels; y grows downwards.

    Attributes:
        title: What it shows, for who cannot see it.
    """

    width: float
    height: float
    title: str
    marks: list[Mark] = field(default_factory=list)

    def add(self, *marks: Mark) -> None:
        self.marks += marks

    def svg(self, *, is_file: bool = False) -> Markup:
        """Draws it for a page, or as a file of its own, which brings its colours."""
        own = {"xmlns": "http://www.w3.org/2000/svg", "font_family": _FONTS} if is_file else {}
        size = {"width": self.width, "height": self.height} if is_file else {}
        ground = (
            joined(
                element("style", Markup(palette.css())),
                element("rect", width="100%", height="100%", fill="var(--paper)"),
            )
            if is_file
            else None
        )
        return element(
            "svg", ground, *map(_svg, self.marks), role="img", aria_label=self.title,
            viewBox=f"0 0 {self.width:g} {self.height:g}", **own, **size,
        )  # fmt: skip

    def png(self) -> bytes:
        """Draws it with the light colours, two dots a pixel."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(self.width / 100, self.height / 100), dpi=200)
        figure.patch.set_facecolor(palette.LIGHT["paper"])
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, self.width), ylim=(self.height, 0))
        axes.set_axis_off()
        for order, mark in enumerate(self.marks):
            _paint(axes, mark, order)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", metadata={"Software": None})
        return drawn.getvalue()


def gallery(drawings: Sequence[Drawing], columns: int, title: str) -> Drawing:
    """One picture of several, in rows."""
    gap, left = 16, 0.0
    x = y = float(gap)
    height = width = 0.0
    found = Drawing(0, 0, title)
    for number, each in enumerate(drawings):
        if number % columns == 0:
            x, y, height = gap + left, y + height + gap * bool(number), 0.0
        found.add(*(_moved(mark, x, y) for mark in each.marks))
        x += each.width + gap
        height, width = max(height, each.height), max(width, x)
    found.width, found.height = width, y + height + gap
    return found


_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def _svg(mark: Mark) -> Markup:
    colour = f"var(--{mark.colour})"
    if isinstance(mark, Label):
        return element(
            "text", mark.text, x=mark.x, y=mark.y, font_size=mark.size, text_anchor=mark.anchor,
            fill=colour, font_weight="600" if mark.is_bold else None,
        )  # fmt: skip
    if isinstance(mark, Line):
        return element(
            "polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points), fill="none",
            stroke=colour, stroke_width=mark.width, stroke_linejoin="round",
            stroke_dasharray="4 3" if mark.is_dashed else None, opacity=_unless_1(mark.opacity),
        )  # fmt: skip
    title = element("title", mark.title) if mark.title else None
    if isinstance(mark, Box):
        return element(
            "rect", title, x=mark.x, y=mark.y, width=max(mark.width, 0.0),
            height=max(mark.height, 0.0), fill=colour, opacity=_unless_1(mark.opacity),
        )  # fmt: skip
    return element(
        "circle", title, cx=mark.x, cy=mark.y, r=mark.radius, stroke=colour, stroke_width=2.0,
        fill="var(--paper)" if mark.is_hollow else colour,
    )  # fmt: skip


def _unless_1(opacity: float) -> float | None:
    return None if opacity >= 1 else opacity


def _paint(axes, mark: Mark, order: int) -> None:  # type: ignore[no-untyped-def]
    """Draws a mark with Matplotlib, whose points are 1/72 of an inch and whose pixels 1/100."""
    colour = palette.LIGHT[mark.colour]
    points = 0.72
    if isinstance(mark, Label):
        axes.text(
            mark.x, mark.y, plain(mark.text), color=colour, fontsize=mark.size * points,
            zorder=order,
            ha={"start": "left", "middle": "center", "end": "right"}[mark.anchor], va="baseline",
            fontweight="bold" if mark.is_bold else "normal", parse_math=False,
        )  # fmt: skip
    elif isinstance(mark, Line):
        xs, ys = zip(*mark.points, strict=True)
        axes.plot(
            xs, ys, color=colour, linewidth=mark.width * points, zorder=order, alpha=mark.opacity,
            linestyle=(0, (4, 3)) if mark.is_dashed else "-",
        )  # fmt: skip
    elif isinstance(mark, Box):
        from matplotlib.patches import Rectangle

        axes.add_patch(
            Rectangle((mark.x, mark.y), mark.width, mark.height, facecolor=colour,
                      alpha=mark.opacity, linewidth=0, zorder=order)
        )  # fmt: skip
    else:
        axes.plot(
            [mark.x], [mark.y], "o", markersize=2 * mark.radius * points, zorder=order,
            markeredgecolor=colour, markeredgewidth=2 * points,
            markerfacecolor=palette.LIGHT["paper"] if mark.is_hollow else colour,
        )  # fmt: skip


def _moved(mark: Mark, dx: float, dy: float) -> Mark:
    if isinstance(mark, Line):
        return replace(mark, points=tuple((x + dx, y + dy) for x, y in mark.points))
    return replace(mark, x=mark.x + dx, y=mark.y + dy)
