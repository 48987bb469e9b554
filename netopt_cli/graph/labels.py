"""Labels: which unit (channel, neuron, head) each index of a tensor's axes belongs to.

A label is an integer. Each axis of a tensor has a vector of them, one for each index; removing a
unit deletes the indices that carry its label, from every tensor and weight. `FIXED` is the label of
indices that must stay. Where an operation ties units together (an Add ties channel i of one branch
to channel i of the other) their labels are merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

FIXED = 0

Ids = np.ndarray
"""Labels of the indices of one axis, int (n,)."""


def fixed(size: int | None) -> Ids:
    """Returns the labels of an axis that must stay; an axis of unknown size counts as one index."""
    return np.zeros(size or 1, int)


def is_free(ids: Ids) -> bool:
    """Whether any index of an axis may belong to a unit that can be removed."""
    return bool(ids.any())


@dataclass(frozen=True)
class Labels:
    """The labels of a tensor: those of each axis, the batch being the first."""

    axes: tuple[Ids, ...]

    @classmethod
    def fixed(cls, shape: Iterable[int | None]) -> Labels:
        return cls(tuple(fixed(size) for size in shape))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(ids) for ids in self.axes)

    @property
    def rank(self) -> int:
        return len(self.axes)

    @property
    def free_axes(self) -> list[int]:
        return [axis for axis, ids in enumerate(self.axes) if is_free(ids)]

    def __getitem__(self, axis: int) -> Ids:
        return self.axes[axis]

    def with_axis(self, axis: int, ids: Ids) -> Labels:
        axes = list(self.axes)
        axes[axis] = ids
        return Labels(tuple(axes))


class Unions:
    """The labels of one model, and which of them belong together (union-find)."""

    def __init__(self) -> None:
        self._parents = [FIXED]
        self._reasons: dict[int, str] = {FIXED: "it is fixed"}

    def new(self, size: int) -> Ids:
        """Returns `size` new labels. A single unit can never be removed, and is fixed."""
        if size == 1:
            return fixed(1)
        first = len(self._parents)
        self._parents.extend(range(first, first + size))
        return np.arange(first, first + size)

    def merge(self, first: Ids, second: Ids, reason: str) -> None:
        """Ties two axes index by index; `reason` says why, where one of the two is fixed."""
        if len(first) != len(second):
            raise ValueError(f"Axes of {len(first)} and {len(second)} indices cannot be tied")
        if first is second:
            return
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            self._merge(one, other, reason)

    def protect(self, ids: Ids, reason: str) -> None:
        for label in ids.tolist():
            self._reasons.setdefault(self._root(label), reason)

    def roots(self, ids: Ids) -> Ids:
        """Returns one label for all that belong together, FIXED for those that must stay."""
        found = [self._root(label) for label in ids.tolist()]
        return np.array([FIXED if root in self._reasons else root for root in found], int)

    def reason(self, label: int) -> str:
        """Returns why a label is fixed."""
        return self._reasons[self._root(label)]

    def __len__(self) -> int:
        return len(self._parents)

    def _root(self, label: int) -> int:
        parents = self._parents
        while parents[label] != label:
            parents[label] = parents[parents[label]]
            label = parents[label]
        return label

    def _merge(self, first: int, second: int, reason: str) -> None:
        first, second = sorted((self._root(first), self._root(second)))
        if first == second:
            return
        if first == FIXED:
            self._reasons.setdefault(second, reason)
            return
        self._parents[second] = first
        if second in self._reasons:
            self._reasons.setdefault(first, self._reasons[second])


def blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[range, range]]:
    """Splits a reshape into the smallest runs of axes that hold the same number of elements.

    Args:
        old, new: Shapes of the same number of elements.
    """
    found = []
    i = j = 0
    while i < len(old) or j < len(new):
        start_i, start_j = i, j
        size_i = size_j = 1
        if i < len(old):
            size_i, i = old[i], i + 1
        if j < len(new):
            size_j, j = new[j], j + 1
        while size_i != size_j:
            if size_i < size_j:
                size_i, i = size_i * old[i], i + 1
            else:
                size_j, j = size_j * new[j], j + 1
        found.append((range(start_i, i), range(start_j, j)))
    return found
