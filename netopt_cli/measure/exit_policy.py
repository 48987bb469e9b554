"""When a sample leaves a network with early exits, and how the thresholds are chosen.

No TensorFlow is imported here: the probe times segments in a process without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from netopt_cli.contracts import ExitPolicy

GRID = 100
"""Thresholds that are tried for an exit: quantiles of its uncertainties."""

NEVER = -math.inf
"""The threshold of an exit where nobody leaves."""


@dataclass(frozen=True)
class Choice:
    """Thresholds, and what they do on the samples that they were chosen on.

    Attributes:
        thresholds: float64 (exits,): a sample leaves when its uncertainty is not above.
        accuracy: Of the policy.
        final_accuracy: Of the final logits.
        cost: Mean cost of a sample, as a fraction of that of all segments.
    """

    thresholds: np.ndarray
    accuracy: float
    final_accuracy: float
    cost: float


class Uncertainty:
    """What an exit's threshold is compared with, sample by sample: see `ExitPolicy.rule`."""

    def __init__(self, rule: str) -> None:
        self._of = {"entropy": _entropy, "confidence": _doubt, "patience": self._impatience}[rule]
        self._predicted = self._streak = -1

    def __call__(self, exit_: int, logits: np.ndarray) -> float:
        """Of one sample at one exit, counted from 0; its exits are asked for in order.

        Args:
            logits: float32 (classes,).
        """
        if exit_ == 0:
            self._predicted = self._streak = -1
        return self._of(logits)

    def _impatience(self, logits: np.ndarray) -> float:
        predicted = int(logits.argmax())
        self._streak = self._streak + 1 if predicted == self._predicted else 0
        self._predicted = predicted
        return -float(self._streak)


def uncertainties(rule: str, logits: np.ndarray) -> np.ndarray:
    """float32 (exits, n, classes) -> float64 (exits, n), as samples one by one would have them."""
    of = Uncertainty(rule)
    exits, samples, _ = logits.shape
    found = np.empty((exits, samples))
    for sample in range(samples):
        for exit_ in range(exits):
            found[exit_, sample] = of(exit_, logits[exit_, sample])
    return found


def left_at(uncertain: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Returns the exit at which each sample leaves: int (n,), `exits` where it goes to the end."""
    sure = np.vstack([uncertain <= thresholds[:, np.newaxis], np.ones(uncertain.shape[1:], bool)])
    return sure.argmax(axis=0)


def choose_thresholds(
    policy: ExitPolicy, uncertain: np.ndarray, correct: np.ndarray, costs: np.ndarray
) -> Choice:
    """Chooses a threshold for each exit, greedily.

    From "nobody leaves early" on, the one threshold is raised to its next quantile that saves most
    for each sample that it makes wrong: until no step is left that `max_drop` allows, or until
    `target_cost` is reached. The standard error of what is lost is that of a difference of paired
    samples: the root of the number of those that only one of policy and final logits gets right.

    Args:
        uncertain: float (exits, n), on validation samples.
        correct: bool (exits + 1, n): whether each exit, and the final logits, are right.
        costs: (exits + 1,): of a sample that leaves there, or goes to the end.
    """
    exits, samples = uncertain.shape
    grids = [_grid(row) for row in uncertain]
    everyone = np.arange(samples)

    def outcome(places: list[int]) -> _Outcome:
        thresholds = np.array([grid[place] for grid, place in zip(grids, places, strict=True)])
        left = left_at(uncertain, thresholds)
        right = correct[left, everyone]
        error = math.sqrt(np.count_nonzero(right != correct[-1])) / samples
        return _Outcome(
            places,
            accuracy=float(right.mean()),
            least_accuracy=float(right.mean()) - policy.margin * error,
            cost=float(costs[left].mean() / costs[-1]),
        )

    def steps(now: _Outcome) -> Iterator[_Outcome]:
        """For each exit the next threshold that saves something."""
        for exit_ in range(exits):
            for place in range(now.places[exit_] + 1, len(grids[exit_])):
                then = outcome([*now.places[:exit_], place, *now.places[exit_ + 1 :]])
                if then.cost < now.cost:
                    yield then
                    break

    now = start = outcome([0] * exits)
    least = -math.inf if policy.max_drop is None else start.accuracy - policy.max_drop / 100
    target = policy.target_cost or 0.0
    while now.cost > target:
        allowed = [then for then in steps(now) if then.least_accuracy >= least - 1e-9]
        if not allowed:
            break
        now = max(allowed, key=now.worth)
    thresholds = np.array([grid[place] for grid, place in zip(grids, now.places, strict=True)])
    return Choice(thresholds, now.accuracy, start.accuracy, now.cost)


@dataclass(frozen=True)
class _Outcome:
    """What thresholds, by their places in the grids, do."""

    places: list[int]
    accuracy: float
    least_accuracy: float
    cost: float

    def worth(self, then: _Outcome) -> tuple[bool, float]:
        """Steps that lose nothing come first, then those that save most for what they lose."""
        lost, saved = self.accuracy - then.accuracy, self.cost - then.cost
        return lost <= 0, saved if lost <= 0 else saved / lost


def _grid(values: np.ndarray) -> list[float]:
    """Thresholds for an exit: none leaves, then quantiles up to all leave; each halfway to the next
    greater value, so that rounding decides about nobody."""
    ordered = np.unique(values)
    between = np.append((ordered[:-1] + ordered[1:]) / 2, ordered[-1] + 1.0)
    quantiles = np.quantile(values, np.linspace(0, 1, GRID + 1), method="lower")
    return [NEVER, *between[np.unique(np.searchsorted(ordered, quantiles))].tolist()]


def _entropy(logits: np.ndarray) -> float:
    """Of the softmax, in nats.

    Plain Python: on ten classes it takes 1.7 µs, a third of NumPy's time, and a small segment takes
    twenty.
    """
    values = logits.tolist()
    largest = max(values)
    total = moment = 0.0
    for value in values:
        shifted = value - largest
        share = math.exp(shifted)
        total += share
        moment += share * shifted
    return math.log(total) - moment / total


def _doubt(logits: np.ndarray) -> float:
    """1 - the largest probability of the softmax; see `_entropy`."""
    values = logits.tolist()
    largest = max(values)
    return 1.0 - 1.0 / sum([math.exp(value - largest) for value in values])
