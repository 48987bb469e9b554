"""The report of a run, or of the seeds of one."""

from __future__ import annotations

from dataclasses import dataclass

from netopt_cli.report import curves, histograms, sections, tradeoff
from netopt_cli.report.drawing import Drawing, gallery
from netopt_cli.report.markup import Markup, element
from netopt_cli.report.page import anchor, document, section
from netopt_cli.report.subject import Subject, finite
from netopt_cli.text_table import spans


@dataclass(frozen=True)
class RunReport:
    subject: Subject

    def html(self) -> str:
        subject = self.subject
        found = sections.of_run(subject)
        links = element("nav", *(element("a", name, href=f"#{anchor(name)}") for name, _ in found))
        head = element("header", element("h1", subject.title), meta(subject), links)
        parts = [section(name, content) for name, content in found]
        return document(subject.title, [head, _banner(subject), *parts])

    def picture(self) -> Drawing:
        """Its trade-off, learning curves and weights in one picture."""
        subject = self.subject
        parts = [
            gallery(tradeoff.of_run(subject), 3, "Trade-off"),
            gallery(curves.of_run(subject), 4, "Learning curves"),
            gallery(histograms.of_run(subject)[0], 4, "Weights"),
        ]
        return gallery([part for part in parts if part.marks], 1, subject.title)


def meta(subject: Subject) -> Markup:
    """Name, status, time and seeds in a line."""
    run = subject.head
    started = run.started
    seconds = finite(run.get("wall_seconds", object))
    parts = [
        subject.name,
        run.status,
        started.strftime("%Y-%m-%d %H:%M UTC") if started else "",
        "" if seconds is None else f"{seconds:,.0f} s",
        f"seed{'s' if len(subject.runs) > 1 else ''} {spans(list(subject.runs))}",
    ]
    return element("p", " · ".join(filter(None, parts)), class_="meta")


def _banner(subject: Subject) -> Markup | None:
    """Says of a run that is not complete what became of it."""
    if subject.head.status == "completed":
        return None
    error = subject.head.get("error", str) or "below is what there is so far"
    return element("p", f"This run is not complete ({subject.head.status}): {error}",
                   class_="banner")  # fmt: skip
