"""Which classes are taken for which: a matrix for the baseline and one for the last stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netopt_cli.report.drawing import Box, Drawing, Label
from netopt_cli.report.subject import Entry, Subject, facts_of, of

_SIDE = 300
_LEFT, _TOP, _BOTTOM = 58, 30, 34
_FEW = 12
"""Classes up to which each cell has its count."""


@dataclass(frozen=True)
class Matrix:
    """Counts of the test samples, by class and by what they are taken for, over all seeds."""

    entry: Entry
    classes: list[str]
    counts: list[list[int]]


def of_run(subject: Subject) -> list[Matrix]:
    """The matrices of the baseline and of the last stage, where the records have them."""
    wanted = dict.fromkeys(name.name for name in (subject.baseline, subject.last) if name)
    found = [_matrix(subject, subject.entries[name]) for name in wanted]
    return [each for each in found if each is not None]


def _matrix(subject: Subject, entry: Entry) -> Matrix | None:
    found = [
        of(of(facts_of(run, entry.label), "measurement", dict), "confusion", dict)
        for run in subject.runs.values()
    ]
    classes = [str(name) for name in of(found[0], "classes", list)]
    counts = [of(each, "counts", list) for each in found]
    size = range(len(classes))
    if not classes or not all(_is_square(each, len(classes)) for each in counts):
        return None
    summed = [[sum(each[row][column] for each in counts) for column in size] for row in size]
    return Matrix(entry, classes, summed)


def _is_square(counts: list[object], size: int) -> bool:
    return len(counts) == size and all(
        isinstance(row, list)
        and len(row) == size
        and all(isinstance(count, int) and 0 <= count < 2**53 for count in row)
        for row in counts
    )


def draw(matrix: Matrix) -> Drawing:
    """Rows are the classes, columns what they are taken for; the darker, the larger the part of the
    row. What is right is in the colour of the row, what is wrong in that of a loss."""
    size = len(matrix.classes)
    cell = _SIDE / size
    title = f"{matrix.entry.name}: class (down), taken for (across)"
    drawing = Drawing(_LEFT + _SIDE + 14, _TOP + _SIDE + _BOTTOM, title)
    drawing.add(Label(_LEFT, 16, title, 12.5, is_bold=True))
    for row, counts in enumerate(matrix.counts):
        total = sum(counts) or 1
        y = _TOP + row * cell
        if size <= 2 * _FEW or row % 2 == 0:
            name = _cut(matrix.classes[row], 8)
            drawing.add(Label(_LEFT - 6, y + cell / 2 + 3.5, name, 10, "end", "muted"))
            across = _cut(matrix.classes[row], max(int(cell / 5.5), 1))
            place = (_LEFT + (row + 0.5) * cell, _TOP + _SIDE + 15)
            drawing.add(Label(*place, across, 10, "middle", "muted"))
        for column, count in enumerate(counts):
            x = _LEFT + column * cell
            # Errors are few: the square root makes one in a hundred visible.
            share = count / total if row == column else (count / total) ** 0.5
            colour = "series-0" if row == column else "bad"
            told = f"{matrix.classes[row]} taken for {matrix.classes[column]}: {count} of {total}"
            drawing.add(Box(x, y, cell - 1, cell - 1, "panel"))
            if count:
                opacity = 0.08 + 0.55 * share
                drawing.add(Box(x, y, cell - 1, cell - 1, colour, opacity, told))
            if count and size <= _FEW:
                middle = (x + cell / 2, y + cell / 2 + 3.5)
                drawing.add(Label(*middle, str(count), 10, "middle"))
    return drawing


def changes(before: Matrix, after: Matrix, most: int = 4) -> list[str]:
    """The confusions that became more frequent, in words, the largest first."""
    if before.classes != after.classes:
        return []
    found: list[tuple[int, int, int]] = []
    for row, counts in enumerate(after.counts):
        for column, count in enumerate(counts):
            if row != column:
                found.append((count - before.counts[row][column], row, column))
    found.sort(key=lambda each: (-each[0], *each[1:]))
    return [
        f"{after.classes[row]} for {after.classes[column]}: "
        f"{before.counts[row][column]} → {after.counts[row][column]}"
        for more, row, column in found[:most]
        if more > 0
    ]


def errors_of(matrices: Sequence[Matrix]) -> str:
    """The number of samples that each matrix has wrong, in words."""
    texts = []
    for matrix in matrices:
        total = sum(map(sum, matrix.counts))
        right = sum(matrix.counts[n][n] for n in range(len(matrix.classes)))
        texts.append(f"{matrix.entry.name}: {total - right:,} of {total:,} wrong")
    return "; ".join(texts)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…" if most > 1 else text[:1]
