"""The sections of the report of a run, each on its own; None where there is nothing to show."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

import yaml

from netopt_cli import exit_table, export_table, robustness_table
from netopt_cli.columns import describe, figure_text, percent_text
from netopt_cli.metrics import ACCURACY
from netopt_cli.report import confusion, curves, exits, histograms, layers, summary, tradeoff
from netopt_cli.report.drawing import Drawing
from netopt_cli.report.markup import Markup, element, joined, table
from netopt_cli.report.over_seeds import SeedRows, rows_of
from netopt_cli.report.subject import Entry, Subject, facts_of, of, of_seed
from netopt_cli.statistics import FEWEST

_MAIN = (
    "sparsity", "size_bytes", "size_packed_bytes", "latency_ms_median", "macs",
    "params", "train_seconds",
)  # fmt: skip
_LATENCY_FACTS = ("runtime", "device", "threads", "warmup_runs", "timed_runs")
_ROBUSTNESS = {
    "clean": "clean", "fgsm": "FGSM", "pgd": "PGD", "corrupted": "corrupted",
    "network_pgd": "PGD, Keras", "ece": "ECE", "nll": "NLL", "auroc_max_softmax": "AUROC",
    "auroc_energy": "AUROC, energy",
}  # fmt: skip
_SHARES = ("clean", "fgsm", "pgd", "corrupted", "network_pgd")


def figures(drawings: Sequence[Drawing], class_: str = "") -> Markup | None:
    """Pictures side by side: as many as the window has room for, `four`, or one (`wide`)."""
    found = [element("figure", drawing.svg()) for drawing in drawings]
    return element("div", *found, class_=f"figures {class_}".strip()) if found else None


def of_run(subject: Subject) -> list[tuple[str, Markup]]:
    """Title and content of each section, in their order."""
    weights, problems = histograms.of_run(subject)
    matrices = confusion.of_run(subject)
    if subject.main_line and subject.score == ACCURACY and not matrices:
        problems.append(
            "confusion matrix: the record has none (more than 32 classes, or an older netopt)"
        )
    found = {
        "Summary": summary.section(subject),
        "Trade-off": figures(tradeoff.of_run(subject)),
        "Stages": stages(subject),
        "Learning curves": _curves(subject),
        "Layers before and after": layers.section(subject),
        "Weights in the file": _weights(subject, weights),
        "Confusion": _confusion(subject, matrices),
        "Exported files": _exports(subject),
        "Early exits": _exits(subject),
        "Robustness": _robustness(subject),
        "Notes": _notes(subject, problems),
        "Environment": _environment(subject),
        "Repeat it": _repeat(subject),
    }
    return [(title, content) for title, content in found.items() if content]


def stages(subject: Subject) -> Markup | None:
    """A table to read, and one with every column of metrics.csv."""
    entries = list(subject.entries.values())
    if not entries:
        return None
    wanted = (subject.score, *_MAIN)
    columns = [c for c in wanted if any(c in entry.figures for entry in entries)]
    header = ["stage", *(describe(c).title for c in columns), "change", "compared with"]
    has_verdicts = len(subject.runs) >= FEWEST
    if has_verdicts:
        header.append("verdict")
    rows = []
    for entry in entries:
        row = [entry.name, *(figure_text(c, entry.figures.get(c)) for c in columns)]
        rows.append([*row, *_against_control(subject, entry)][: len(header)])
    last = len(header) - 1
    words = (0, last - 1, last) if has_verdicts else (0, last)
    classes = ["dim" if entry.is_control else "" for entry in entries]
    told = (
        f"{subject.metric.heading}, sparsity, bytes, latency (batch 1) and memory are those of the "
        f"exported file. Change: {subject.metric.of_changes} against the row compared with, the "
        "plain network trained as long. "
    )
    told += (
        f"Mean ± standard deviation over {len(subject.runs)} seeds."
        if len(subject.runs) > 1
        else "One seed proves nothing."
    )
    return joined(
        table(header, rows, words=words, classes=classes),
        element("p", told, class_="note"),
        _all_figures(entries),
    )


def _against_control(subject: Subject, entry: Entry) -> list[str]:
    other = subject.entries.get(entry.control or "")
    found = subject.compared(entry, other, subject.score) if other else None
    if other is None or found is None:
        return ["", "", ""]
    verdict: str = found.verdict or ""
    if found.p is not None and verdict:
        verdict = f"{verdict} (p = {found.p:.2g})"
    return [subject.metric.bare(found.difference, "+"), other.name, verdict]


def _all_figures(entries: Sequence[Entry]) -> Markup:
    """Every column, with the rows of the run side by side, and 95 % intervals over seeds."""
    rows = []
    for column in dict.fromkeys(column for entry in entries for column in entry.figures):
        cells = [_full(column, entry) for entry in entries]
        rows.append([column, *cells])
    header = ["", *(entry.name for entry in entries)]
    return element("details", element("summary", "All columns of metrics.csv"), table(header, rows))


def _full(column: str, entry: Entry) -> str:
    figure = entry.figures.get(column)
    if figure is None:
        return "–"
    text = figure_text(column, figure)
    if figure.low is None or figure.high is None or figure.low == figure.high:
        return text
    write = describe(column).text
    return f"{text} [{write(figure.low)}, {write(figure.high)}]"


def _curves(subject: Subject) -> Markup | None:
    drawn = figures(curves.of_run(subject), "four")
    if drawn is None:
        return None
    told = (
        "Thick: validation; thin: training. Grey and dashed: the control, and what else a stage "
        "trained, as a teacher."
    )
    told += " A line for each seed." if len(subject.runs) > 1 else ""
    return joined(drawn, element("p", told, class_="note"))


def _weights(subject: Subject, drawn: Sequence[Drawing]) -> Markup | None:
    if not drawn:
        return None
    told = f"Exported files. {of_seed(subject)}"
    return joined(element("p", told, class_="note"), figures(drawn, "four"))


def _confusion(subject: Subject, matrices: list[confusion.Matrix]) -> Markup | None:
    if not matrices:
        return None
    seeds = len(subject.runs)
    which = f"exported files of all {seeds} seeds together" if seeds > 1 else "exported files"
    told = f"Test split, {which}. {confusion.errors_of(matrices)}."
    more = confusion.changes(matrices[0], matrices[-1])
    if more:
        told += f" More often than before: {'; '.join(more)}."
    drawn = [confusion.draw(matrix) for matrix in matrices]
    return joined(element("p", told, class_="note"), figures(drawn))


def _exits(subject: Subject) -> Markup | None:
    rows = rows_of(subject, "exits", exit_table.KEYS)
    drawing = exits.draw(rows)
    if drawing is None:
        return None
    columns = {
        "share": ("share", percent_text),
        "accuracy": ("accuracy", percent_text),
        "macs_mean": ("MACs", describe("macs").text),
        "latency_ms_mean": ("mean latency", describe("latency_ms_median").text),
        "latency_ms_p99": ("p99", describe("latency_ms_median").text),
    }
    cells = [
        [*map(row.word, exit_table.KEYS), *(row.text(c, text) for c, (_, text) in columns.items())]
        for row in rows
    ]
    header = [*exit_table.KEYS, *(title for title, _ in columns.values())]
    return joined(
        figures([drawing], "wide"), table(header, cells, words=(0, 1)), _over_seeds(subject)
    )


def _exports(subject: Subject) -> Markup | None:
    """The files of each stage in further formats, the fastest one marked."""
    rows = rows_of(subject, "exports", export_table.KEYS)
    if not rows:
        return None
    columns = (subject.score, "size_bytes", "latency_ms_median", "peak_memory_bytes")
    timed = [(latency.mean, row) for row in rows if (latency := row.figure("latency_ms_median"))]
    fastest: dict[str, SeedRows] = {}
    for _, row in sorted(timed, key=lambda each: each[0]):
        fastest.setdefault(row.word("stage"), row)
    cells = [
        [
            *map(row.word, export_table.KEYS),
            *(row.text(column, describe(column).text) for column in columns),
            "fastest" if row is fastest.get(row.word("stage")) else "",
        ]
        for row in rows
    ]
    header = [*export_table.KEYS, *(describe(column).title for column in columns), ""]
    return joined(table(header, cells, words=(0, 1, 2, 7)), _over_seeds(subject))


def _robustness(subject: Subject) -> Markup | None:
    rows = rows_of(subject, "robustness", robustness_table.KEYS)
    known = [name for name in _ROBUSTNESS if any(row.figure(name) for row in rows)]
    if not known:
        return None
    cells = []
    for row in rows:
        name = row.word("stage")
        cells.append([f"{name} control" if row.word("role") == "control" else name])
        for column in known:
            text = percent_text if column in _SHARES else "{:.4f}".format
            cells[-1].append(row.text(column, text))
        cells[-1].append("sound" if row.holds("sound") else "doubtful")
    attack = rows[0]
    told = (
        f"Attacks on {attack.word('samples')} test samples: ε = {attack.word('epsilon')}, "
        f"{attack.word('steps')} steps, {attack.word('restarts')} random starts; foreign samples: "
        f"{attack.word('out_of_distribution')}."
    )
    header = ["stage", *(_ROBUSTNESS[name] for name in known), "attacks"]
    return joined(table(header, cells), element("p", told, class_="note"), _over_seeds(subject))


def _over_seeds(subject: Subject) -> Markup | None:
    if len(subject.runs) == 1:
        return None
    told = f"Mean ± standard deviation over {len(subject.runs)} seeds; pictures show the means."
    return element("p", told, class_="note")


def _notes(subject: Subject, problems: Sequence[str]) -> Markup | None:
    """What the stages said, what was skipped and why, and what this report could not show."""
    parts: list[str | None] = []
    stages_ = subject.run.get("stages", dict) or {}
    for label in stages_:
        notes = [str(note) for note in of(facts_of(subject.run, str(label)), "notes", list)]
        if notes:
            said = element("ul", *(element("li", note) for note in notes))
            parts += [element("h3", str(label)), said]
    if parts and of_seed(subject):
        parts.insert(0, element("p", of_seed(subject), class_="note"))
    missing = [f"{each.name}: {each.reason}" for each in subject.skipped]
    for run in subject.runs.values():
        if run.status != "completed":
            missing.append(f"the run is {run.status}: {run.get('error', str) or 'no error'}")
    missing += problems
    if missing:
        said = element("ul", *(element("li", text) for text in missing))
        parts += [element("h3", "Not in this report"), said]
    return joined(*parts) if parts else None


def _environment(subject: Subject) -> Markup | None:
    run = subject.head
    environment = run.get("environment", dict) or {}
    facts = {name: value for name, value in environment.items() if name != "packages"}
    if isinstance(memory := facts.pop("memory_bytes", None), int):
        facts["memory"] = f"{memory / 2**30:.1f} GiB"
    git = run.get("git", dict) or {}
    facts["git"] = (
        f"{git.get('commit')} {'with changes' if git.get('dirty') else ''}" if git else "–"
    )
    dataset = subject.run.dataset
    facts["data"] = ", ".join(
        f"{key} {value}" for key, value in dataset.items() if not isinstance(value, list | dict)
    )
    if subject.last is not None:
        measured = of(subject.facts(subject.last), "measurement", dict)
        timing = [f"{name} {measured[name]}" for name in _LATENCY_FACTS if name in measured]
        facts["latency by"] = ", ".join(timing)
    facts |= {
        "packages": ", ".join(f"{k} {v}" for k, v in of(environment, "packages", dict).items())
    }
    rows = [[str(name), str(value)] for name, value in facts.items()]
    return table(["", ""], rows, words=(0, 1), wraps=True)


def _repeat(subject: Subject) -> Markup:
    command = [str(word) for word in subject.head.get("command", list) or []]
    config = yaml.safe_dump(
        json.loads(json.dumps(subject.head.config or subject.run.config)),
        sort_keys=False, allow_unicode=True, default_flow_style=None,
    )  # fmt: skip
    return joined(
        element("pre", shlex.join(command), class_="command"),
        element("details", element("summary", "Config"), element("pre", config)),
    )
