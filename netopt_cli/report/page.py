"""A page in one file, that opens without a network and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from netopt_cli.report import palette
from netopt_cli.report.markup import Markup, element

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What a browser may do with the page: no script, and nothing from elsewhere."""


def document(title: str, body: Sequence[Markup | None]) -> str:
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width,initial-scale=1"),
        element("title", title),
        element("style", Markup(palette.css() + style)),
    )
    page = element("html", head, element("body", element("main", *body)), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def section(title: str, content: Markup) -> Markup:
    return element("section", element("h2", title), content, id=anchor(title))


def anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
