"""What came of a run, in words and in a few large figures."""

from __future__ import annotations

from collections.abc import Iterator

from netopt_cli.columns import describe, figure_text
from netopt_cli.metrics import ACCURACY, Metric
from netopt_cli.report.markup import Markup, element, joined
from netopt_cli.report.subject import Entry, Subject
from netopt_cli.statistics import ALPHA, FEWEST, PAIRED_TEST, Comparison

_COSTS = {
    "size_bytes": ("smaller", "larger"),
    "size_packed_bytes": ("smaller", "larger"),
    "latency_ms_median": ("faster", "slower"),
    "macs": ("fewer", "more"),
    "peak_memory_bytes": ("less", "more"),
}
_NAMED = {
    "size_bytes": "the file is",
    "size_packed_bytes": "packed it is",
    "latency_ms_median": "an inference is",
}
_EXACT, _MEASURED = 0.0005, 0.25
"""A ratio that differs from 1 by no more is none: of what is counted, and of what is measured. The
clock of a shared machine allows no less, as in `checking`."""


def section(subject: Subject) -> Markup | None:
    """A sentence or two, and a tile for each key figure; None without any row."""
    last, first = subject.last, subject.baseline
    if last is None or first is None:
        return None
    tiles = [_score_tile(subject, last)]
    tiles += [_cost_tile(subject, last, first, column) for column in _COSTS]
    return joined(
        element("p", " ".join(sentences(subject)), class_="lead"),
        element("div", *(tile for tile in tiles if tile), class_="tiles"),
    )


def sentences(subject: Subject) -> Iterator[str]:
    """The result in words: the metric with its control, then what was gained, then the doubt."""
    last, first = subject.last, subject.baseline
    if last is None or first is None or subject.score not in last.figures:
        return
    after = "of the baseline" if last is first else f"after {last.name}"
    score = figure_text(subject.score, last.figures[subject.score])
    title = subject.metric.title
    differences = list(_differences(subject, last, first))
    told = f", {' and '.join(differences)}" if differences else ""
    if subject.score == ACCURACY:
        yield f"The file {after} gets {score} of the test split right{told}."
    else:
        yield f"On the test split, {title} of the file {after} is {score}{told}."
    gains = [
        f"{what} {text}".strip()
        for column, what in _NAMED.items()
        if last is not first and (text := ratio_text(last, first, column))
    ]
    if gains:
        yield f"Compared with the baseline {', '.join(gains)}."
    if len(subject.runs) >= FEWEST:
        yield f"Verdicts: {PAIRED_TEST}, alpha {ALPHA}, {len(subject.runs)} seeds."
    else:
        yield f"With fewer than 3 seeds no difference in {title} is proven."


def _differences(subject: Subject, last: Entry, first: Entry) -> Iterator[str]:
    """What the metric differs by from the control's and the baseline's."""
    control = subject.entries.get(last.control or "")
    for other, what in ((control, "its control"), (first, "the baseline")):
        if other is None or other is last or (other is first and what.startswith("its")):
            continue
        found = subject.compared(last, other, subject.score)
        if found is not None:
            yield f"{_apart(subject.metric, found)} {what}{_judged(found)}"


def ratio_text(entry: Entry, first: Entry, column: str) -> str:
    """How a cost compares with that of the baseline: `3.60 × smaller`; empty where unknown."""
    mine, theirs = entry.mean(column), first.mean(column)
    if not mine or not theirs or mine < 0 or theirs < 0:
        return ""
    better, worse = _COSTS[column]
    ratio = theirs / mine
    is_measured = column in ("latency_ms_median", "peak_memory_bytes")
    if abs(ratio - 1) <= (_MEASURED if is_measured else _EXACT):
        return "about the same" if is_measured else "unchanged"
    return f"{ratio:.2f} × {better}" if ratio > 1 else f"{1 / ratio:.2f} × {worse}"


def _apart(metric: Metric, found: Comparison) -> str:
    """The difference in words: `1.67 points below`."""
    where = "below" if found.difference < 0 else "above"
    return f"{metric.amount(abs(found.difference))} {where}"


def _judged(found: Comparison) -> str:
    if found.verdict is None or found.p is None:
        return ""
    return f" ({found.verdict}, p = {found.p:.2g})"


def _score_tile(subject: Subject, last: Entry) -> Markup | None:
    score, metric = subject.score, subject.metric
    if score not in last.figures:
        return None
    other = subject.entries.get(last.control or "") or subject.baseline
    found = subject.compared(last, other, score) if other not in (None, last) else None
    if found is None or other is None:
        return _tile(score, last, "", "")
    said = f"{_apart(metric, found)} {other.name}"
    if found.low is not None and found.high is not None:
        said += f", 95 % from {metric.bare(found.low, '+')} to {metric.bare(found.high, '+')}"
    mark = {"better": "good", "worse": "bad"}.get(found.verdict or "", "")
    verdict = element("span", found.verdict, class_=f"chip {mark}") if found.verdict else None
    return _tile(score, last, joined(said, " " if verdict else None, verdict), mark)


def _cost_tile(subject: Subject, last: Entry, first: Entry, column: str) -> Markup | None:
    if column not in last.figures:
        return None
    text = "" if last is first else ratio_text(last, first, column)
    better, worse = _COSTS[column]
    mark = "good" if text.endswith(better) else "bad" if text.endswith(worse) else ""
    return _tile(column, last, text, mark)


def _tile(column: str, entry: Entry, said: str, mark: str) -> Markup:
    title, text = describe(column).title, describe(column).text
    figure = entry.figures[column]
    spread = f" ± {text(figure.sd)}" if figure.sd and text(figure.sd) != text(0) else None
    return element(
        "div",
        element("div", title[:1].upper() + title[1:], class_="tile-title"),
        element("div", text(figure.mean), spread and element("small", spread), class_="tile-value"),
        element("div", said or " ", class_="tile-note"),
        class_=f"tile {mark}".strip(),
    )
