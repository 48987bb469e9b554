"""What a report is about: the rows of a run, over its seeds, with what the records hold of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from netopt_cli.columns import describe, figure_columns
from netopt_cli.errors import RecordError
from netopt_cli.metrics import Metric, metric_named
from netopt_cli.records import StoredRun
from netopt_cli.report import palette
from netopt_cli.run_groups import Group, Skipped, sifted
from netopt_cli.statistics import Comparison, Summary, paired, summary

T = TypeVar("T", dict, list, str)

_LARGEST = 1e30


@dataclass(frozen=True)
class Entry:
    """A row of the metrics table.

    Attributes:
        name: As `control` calls it.
        role: baseline, control, stage or variant.
        control: The name of the row that it is to be compared with.
        label: The folder of its files.
        colour: In pictures.
        figures: By column, over the seeds that have a number there.
        values: The same, by seed.
    """

    name: str
    role: str
    control: str | None
    label: str
    colour: str
    figures: dict[str, Summary]
    values: dict[str, dict[int, float]] = field(repr=False)

    @property
    def is_control(self) -> bool:
        return self.role == "control"

    def mean(self, column: str) -> float | None:
        return self.figures[column].mean if column in self.figures else None


class Subject:
    """A run, or the runs of several seeds.

    Attributes:
        head: The record that was asked for: of the run, or of the parent of its seeds.
        run: The first seed, for what all have in common.
        runs: By seed.
        skipped: Seeds without figures, and why.
        score: The name of the metric that counts.
        entries: By name, in the order of the table.
    """

    def __init__(
        self, group: Group, head: StoredRun | None = None, skipped: Sequence[Skipped] = ()
    ) -> None:
        self.name = group.name
        self.runs = group.runs
        self.run = group.any
        self.head = head or group.any
        self.skipped = skipped
        self.score = group.metric
        self.entries = {each.name: each for each in _entries(group)}

    @property
    def metric(self) -> Metric:
        """What counts."""
        return metric_named(self.score)

    @property
    def baseline(self) -> Entry | None:
        return next((each for each in self.entries.values() if each.role == "baseline"), None)

    @property
    def last(self) -> Entry | None:
        """The last stage, or the baseline where there is none."""
        roles = ("stage", "baseline")
        return next((e for e in reversed(self.entries.values()) if e.role in roles), None)

    @property
    def main_line(self) -> list[Entry]:
        """The baseline and the stages, each made of the one before."""
        return [e for e in self.entries.values() if e.role in ("baseline", "stage")]

    @property
    def title(self) -> str:
        stages = " → ".join(self.run.stages) or "baseline alone"
        return f"{self.run.arch or 'network'} on {self.run.data or 'data'}: {stages}"

    def compared(self, entry: Entry, other: Entry, column: str) -> Comparison | None:
        """A row against another, pair by pair; None where no seed has both."""
        mine, theirs = entry.values.get(column, {}), other.values.get(column, {})
        seeds = [seed for seed in mine if seed in theirs]
        if not seeds:
            return None
        return paired(
            [mine[seed] for seed in seeds],
            [theirs[seed] for seed in seeds],
            higher_is_better=describe(column).higher_is_better,
        )

    def facts(self, entry: Entry) -> dict[str, Any]:
        """What the record of the first seed keeps of a row."""
        return facts_of(self.run, entry.label)

    def files(self, entry: Entry) -> list[Path]:
        """The exported file of a row, or those of its segments, of the first seed."""
        home = self.run.folder.resolve()
        folder = home / entry.label
        found = [folder / "model.tflite", *sorted(folder.glob("segment_*.tflite"))]
        # A stranger's record may name, and link to, what is not its own.
        return [path for path in found if path.is_file() and path.resolve().is_relative_to(home)]


def single(run: StoredRun) -> Subject:
    """The subject of a run, finished or not, or of a parent of seeds.

    Raises:
        RecordError: The record is of something else, or none of its seeds has figures.
    """
    if run.get("kind", str) == "sensitivity":
        raise RecordError(
            f"{run.folder} is a scan of `netopt sensitivity`: see its sensitivity.md and .svg"
        )
    name = run.folder.absolute().name
    if not run.is_seeds:
        if not run.seeds:
            raise RecordError(f"{run.folder} holds the record of a run without a seed")
        return Subject(Group(name, [run]))
    usable, skipped = sifted(run, name)
    if not usable:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in skipped)
        raise RecordError(f"none of the seeds of {run.folder} is complete: {reasons or 'none'}")
    return Subject(Group(name, usable.values()), run, skipped)


def of(node: Any, key: str, kind: type[T]) -> T:
    """What a part of a record has under a key; empty where it is not of that kind."""
    value = node.get(key) if isinstance(node, dict) else None
    return value if isinstance(value, kind) else kind()


def facts_of(run: StoredRun, label: str) -> dict[str, Any]:
    return of(run.get("stages", dict) or {}, label, dict)


def of_seed(subject: Subject) -> str:
    """Which seed is shown where it is one alone."""
    return f"Of seed {subject.run.seeds[0]} alone." if len(subject.runs) > 1 else ""


def finite(value: Any) -> float | None:
    """The number in a cell of a record; None of anything else, and of what no run has measured."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -_LARGEST < value < _LARGEST else None


def _entries(group: Group) -> Iterator[Entry]:
    stages = group.any.stages
    number = 0
    for name, row in group.rows.items():
        role = str(row["role"])
        if role == "baseline":
            colour = palette.BASELINE
        elif role == "control":
            colour = palette.CONTROL
        else:
            colour = palette.series(number)
            number += 1
        values: dict[str, dict[int, float]] = {}
        for column in figure_columns([row]):
            found = {s: v for s, v in group.values(name, column).items() if finite(v) is not None}
            if found:
                values[column] = found
        yield Entry(
            name=name,
            role=role,
            control=row["control"] if isinstance(row.get("control"), str) else None,
            label=_label(str(row["stage"]), role, stages),
            colour=colour,
            figures={column: summary(list(each.values())) for column, each in values.items()},
            values=values,
        )


def _label(stage: str, role: str, stages: list[str]) -> str:
    """The name of the folder of a row, as the pipeline gives it."""
    if role == "baseline":
        return f"0-{stage}"
    name, _, variant = stage.partition(", ")
    if name not in stages:
        return ""
    label = f"{stages.index(name) + 1}-{name}"
    if role == "variant":
        return f"{label}-{variant.replace(' ', '_')}"
    return f"{label}-control" if role == "control" else label
