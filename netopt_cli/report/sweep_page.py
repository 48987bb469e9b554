"""The report of a sweep: the last stages side by side, then each run by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from netopt_cli import comparison_tables
from netopt_cli.comparing import Line, compare, config_differences
from netopt_cli.report import palette, sections, tradeoff
from netopt_cli.report.drawing import Drawing, gallery
from netopt_cli.report.markup import Markup, element, joined, table
from netopt_cli.report.page import document, section
from netopt_cli.report.run_page import meta
from netopt_cli.report.subject import Subject
from netopt_cli.run_groups import Group, Skipped

_COST = "size_bytes"


@dataclass(frozen=True)
class SweepReport:
    """Attributes:
    name: Of the sweep.
    groups: Its runs, those that differ in their seed alone as one.
    skipped: What has no figures, and why.
    """

    name: str
    groups: Sequence[Group]
    skipped: Sequence[Skipped]

    def html(self) -> str:
        lines = compare(self.groups, "last", _COST)
        title = f"{self.name}: {len(self.groups)} runs"
        told = "A point is the last stage of a run, by its number; the line joins the Pareto front."
        head = element("header", element("h1", title), element("p", told, class_="meta"))
        found = {
            "Trade-off": sections.figures(self._tradeoff(lines)),
            "Runs side by side": _overview(lines),
            "What differs": _differences(self.groups, lines),
            "Left out": _left_out(self.skipped),
        }
        parts = [section(name, content) for name, content in found.items() if content]
        runs = [_run(number, group) for number, group in enumerate(self.groups, start=1)]
        return document(title, [head, *parts, element("h2", "Each run"), *runs])

    def picture(self) -> Drawing:
        """Its trade-off."""
        return gallery(self._tradeoff(compare(self.groups, "last", _COST)), 3, self.name)

    def _tradeoff(self, lines: Sequence[Line]) -> list[Drawing]:
        points = []
        for number, line in enumerate(lines, start=1):
            entry = Subject(line.group).entries[line.row]
            points.append((str(number), replace(entry, colour=palette.series(number - 1))))
        front = [str(number) for number, line in enumerate(lines, start=1) if line.on_front]
        return tradeoff.of_runs(points, lines[0].metric, front)


def _overview(lines: Sequence[Line]) -> Markup:
    columns = comparison_tables.columns(lines, _COST)
    shown = {name: texts for name, texts in columns.items() if any(texts)}
    words = tuple(n for n, name in enumerate(shown) if name in comparison_tables.LEFT)
    rows = [list(row) for row in zip(*shown.values(), strict=True)]
    classes = ["front" if line.on_front else "" for line in lines]
    notes = [element("p", n, class_="note") for n in comparison_tables.footnotes(lines, _COST)]
    return joined(table(list(shown), rows, words=words, classes=classes), *notes)


def _differences(groups: Sequence[Group], lines: Sequence[Line]) -> Markup | None:
    columns = comparison_tables.config_columns(config_differences(groups), lines)
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return table(list(columns), rows, words=(0, 1, 2), wraps=True) if rows else None


def _left_out(skipped: Sequence[Skipped]) -> Markup | None:
    said = [element("li", f"{each.name}: {each.reason}") for each in skipped]
    return element("ul", *said) if said else None


def _run(number: int, group: Group) -> Markup:
    """Everything of one run, folded up."""
    subject = Subject(group)
    head = element("summary", f"{number}. {subject.name}: {subject.title}")
    # Without ids, which are of one page each.
    parts = [
        element("section", element("h3", name), content)
        for name, content in sections.of_run(subject)
    ]
    return element("details", head, meta(subject), *parts, class_="run")
