"""What a few numbers tell: mean, deviation, interval, and whether two sets of them differ.

Student's t, for the handful of seeds that one has. Its distribution is computed here: SciPy would
take longer to import than everything else that a table of runs needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

ALPHA = 0.05
"""Probability of a verdict where there is no difference; intervals hold 1 - ALPHA."""

FEWEST = 3
"""Values on either side without which there is no verdict."""

PAIRED_TEST = "paired two-sided t test over seeds"
WELCH_TEST = "Welch's two-sided t test"

_SAME = 1e-6
"""Deviation of differences, relative to the values, that is the rounding of a float32."""

Verdict = Literal["better", "worse", "no evidence"]


@dataclass(frozen=True)
class Summary:
    """What a sample tells of the mean that it was drawn around.

    Attributes:
        sd: Sample standard deviation (n - 1); None of fewer than 2 values.
        low: Lower end of the 95 % t interval of the mean; None of fewer than 2 values.
        high: Its upper end.
    """

    mean: float
    sd: float | None
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """A sample against another.

    Attributes:
        difference: Of the means: the first minus the second.
        low: Lower end of the 95 % t interval of the difference; None without a deviation.
        high: Its upper end.
        p: Probability of a difference as large as this one where there is none.
        n: Pairs, or values of the smaller sample.
        verdict: On the first sample; None of fewer than 3 values.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    n: int
    verdict: Verdict | None


def summary(values: Sequence[float]) -> Summary:
    """Summarizes a sample of at least one finite number."""
    mean, sd = _moments(values)
    if sd is None:
        return Summary(mean, None, len(values), None, None)
    n = len(values)
    reach = t_quantile(1 - ALPHA / 2, n - 1) * sd / math.sqrt(n)
    return Summary(mean, sd, n, mean - reach, mean + reach)


def paired(a: Sequence[float], b: Sequence[float], *, higher_is_better: bool) -> Comparison:
    """The paired t test of `a` against `b`, whose values of the same place belong together.

    Where all differences are the same, t has no denominator. Counts that do not vary, as bytes,
    leave no doubt. Anything else may be a coincidence, as with accuracies on a few hundred samples,
    and gets the deviation that the grid of the values hides: `step / sqrt(6)` of a difference
    (Sheppard, 1898), where `step` is the smallest one between two values.

    Raises:
        ValueError: The samples are not of the same length, or empty.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean, sd = _moments(differences)
    n = len(differences)
    are_counts = _are_constant_counts(a) and _are_constant_counts(b)
    if sd is not None and sd <= _SAME * _size(a, b) and not are_counts:
        sd = _step(a, b) / math.sqrt(6)
    error = None if sd is None else sd / math.sqrt(n)
    return _comparison(mean, error, n - 1, n, higher_is_better)


def welch(a: Sequence[float], b: Sequence[float], *, higher_is_better: bool) -> Comparison:
    """Welch's t test of `a` against `b`, which need not be of the same length or deviation.

    Welch (1947), with Satterthwaite's degrees of freedom.

    Raises:
        ValueError: A sample is empty.
    """
    (mean_a, sd_a), (mean_b, sd_b) = _moments(a), _moments(b)
    n = min(len(a), len(b))
    if sd_a is None or sd_b is None:
        return _comparison(mean_a - mean_b, None, 0, n, higher_is_better)
    of_a, of_b = sd_a**2 / len(a), sd_b**2 / len(b)
    spread = of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1)
    df = (of_a + of_b) ** 2 / spread if spread else n - 1
    return _comparison(mean_a - mean_b, math.sqrt(of_a + of_b), df, n, higher_is_better)


@lru_cache(maxsize=256)
def t_quantile(probability: float, df: float) -> float:
    """The value that Student's t with `df` degrees of freedom stays below so often (0 to 1)."""
    if probability < 0.5:
        return -t_quantile(1 - probability, df)
    # The two-sided tail is the incomplete beta function of df / (df + t²), which falls with t.
    tail = 2 * (1 - probability)
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        if _incomplete_beta(middle, df / 2, 0.5) < tail:
            low = middle
        else:
            high = middle
    return math.sqrt(df * (1 - high) / high)


def t_cdf(t: float, df: float) -> float:
    """How often Student's t with `df` degrees of freedom stays below `t`."""
    tail = _incomplete_beta(df / (df + t * t), df / 2, 0.5) / 2
    return tail if t < 0 else 1 - tail


def _moments(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation."""
    if not values:
        raise ValueError("there are no values")
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, None
    if min(values) == max(values):
        return values[0], 0.0  # not the rounding of the mean
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))


def _comparison(
    difference: float, error: float | None, df: float, n: int, higher_is_better: bool
) -> Comparison:
    """The comparison that follows from a difference of means and its standard error."""
    if error is None:
        return Comparison(difference, None, None, None, n, None)
    p = float(difference == 0)
    if error > 0:
        p = 2 * t_cdf(-abs(difference) / error, df)
    reach = t_quantile(1 - ALPHA / 2, df) * error
    verdict: Verdict | None = None
    if n >= FEWEST:
        is_better = (difference > 0) == higher_is_better
        verdict = "no evidence" if p >= ALPHA else "better" if is_better else "worse"
    return Comparison(difference, difference - reach, difference + reach, p, n, verdict)


def _size(*samples: Sequence[float]) -> float:
    return max(abs(value) for sample in samples for value in sample)


def _step(*samples: Sequence[float]) -> float:
    """The smallest step between two values, beyond rounding; 0 where all are the same."""
    values = sorted(value for sample in samples for value in sample)
    steps = [after - before for before, after in pairwise(values)]
    return min((step for step in steps if step > _SAME * _size(*samples)), default=0.0)


def _are_constant_counts(values: Sequence[float]) -> bool:
    return min(values) == max(values) and float(values[0]).is_integer()


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function: DLMF 8.17.22, by Lentz's method."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):  # where the fraction would converge slowly
        return 1 - _incomplete_beta(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log_front + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    c, d = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for numerator in (even, odd):
            d = 1 / _not_zero(1 + numerator * d, tiny)
            c = _not_zero(1 + numerator / c, tiny)
            fraction *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return front * fraction


def _not_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
