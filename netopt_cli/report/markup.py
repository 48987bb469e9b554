"""HTML and SVG that cannot be broken out of: what is no markup of ours is escaped."""

from __future__ import annotations

import html

_EMPTY = frozenset({"meta", "br", "line", "rect", "circle", "path", "polyline"})


class Markup(str):
    """Text that stands in a page as it is. Made by `element` and `joined`, of whatever texts."""


def escaped(text: str) -> Markup:
    """A text as markup; control characters and broken Unicode, as of a stranger, become blanks."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)
    return Markup(html.escape(text))


def joined(*parts: str | None) -> Markup:
    """The parts one after the other, escaped where they are plain text; None is left out."""
    found = (part if isinstance(part, Markup) else escaped(part) for part in parts if part)
    return Markup("".join(found))


def element(name: str, /, *children: str | None, **attributes: str | float | None) -> Markup:
    """An element. `class_` is written `class`, `text_anchor` is `text-anchor`; None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _EMPTY and not children:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")


def table(
    header: list[str],
    rows: list[list[str]],
    *,
    words: tuple[int, ...] = (0,),
    wraps: bool = False,
    classes: list[str] | None = None,
) -> Markup:
    """A table that scrolls by itself where the window is narrow.

    Args:
        words: Columns of words; the others are of figures.
        wraps: Whether words may go on in a next line.
        classes: A CSS class of each row, or empty.
    """

    def line(cell: str, texts: list[str], of_row: str | None) -> Markup:
        cells = (
            element(cell, text, class_="word" if column in words else None)
            for column, text in enumerate(texts)
        )
        return element("tr", *cells, class_=of_row or None)

    marks = classes or [""] * len(rows)
    head = element("thead", line("th", header, None))
    body = element("tbody", *(line("td", row, mark) for row, mark in zip(rows, marks, strict=True)))
    return element(
        "div", element("table", head, body, class_="wraps" if wraps else None), class_="scroll"
    )


def _text(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
