"""Statistics over seeds: against SciPy, against simulation, and at their edges."""

import math
import random

import pytest
from scipy import stats

from netopt_cli.statistics import paired, summary, t_cdf, t_quantile, welch


@pytest.mark.parametrize("df", [1, 2, 3.7, 9, 40, 1000])
def test_students_distribution_is_that_of_scipy(df: float) -> None:
    for probability in (0.001, 0.3, 0.5, 0.9, 0.975, 0.9999):
        expected = stats.t.ppf(probability, df)
        assert t_quantile(probability, df) == pytest.approx(expected, rel=1e-8, abs=1e-7)
        assert t_cdf(expected, df) == pytest.approx(probability, rel=1e-9)
    assert t_cdf(-40.0, df) == pytest.approx(stats.t.cdf(-40.0, df), rel=1e-9)


def test_the_tests_are_those_of_scipy() -> None:
    draw = random.Random(0)
    for size in (2, 3, 10):
        a = [draw.gauss(0.9, 0.02) for _ in range(size)]
        b = [draw.gauss(0.89, 0.01) for _ in range(size)]
        expected = stats.ttest_rel(a, b)
        found = paired(a, b, higher_is_better=True)
        assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
        interval = expected.confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-7)
        more = [*b, 0.91, 0.88]
        expected = stats.ttest_ind(a, more, equal_var=False)
        found = welch(a, more, higher_is_better=True)
        assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
        interval = expected.confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-7)


def test_the_interval_holds_the_mean_nineteen_times_in_twenty() -> None:
    draw = random.Random(1)
    trials = 2000
    for size in (3, 5):
        held, verdicts = 0, 0
        for _ in range(trials):
            a = [draw.gauss(0.9, 0.01) for _ in range(size)]
            b = [draw.gauss(0.9, 0.01) for _ in range(size)]
            found = summary(a)
            assert found.low is not None and found.high is not None
            held += found.low < 0.9 < found.high
            verdicts += paired(a, b, higher_is_better=True).verdict != "no evidence"
        # Four standard deviations of a binomial of 2,000.
        assert abs(held / trials - 0.95) < 0.02
        assert abs(verdicts / trials - 0.05) < 0.02


def test_a_verdict_goes_by_the_direction() -> None:
    a, b = [0.95, 0.96, 0.955, 0.951], [0.91, 0.925, 0.915, 0.91]
    assert paired(a, b, higher_is_better=True).verdict == "better"
    assert paired(a, b, higher_is_better=False).verdict == "worse"
    assert welch(b, a, higher_is_better=True).verdict == "worse"
    assert paired(a, [0.95, 0.961, 0.954, 0.951], higher_is_better=True).verdict == "no evidence"


def test_too_few_values_give_no_verdict() -> None:
    alone = summary([0.5])
    assert (alone.mean, alone.sd, alone.n, alone.low, alone.high) == (0.5, None, 1, None, None)
    one = paired([0.9], [0.8], higher_is_better=True)
    assert (one.low, one.high, one.p, one.n, one.verdict) == (None, None, None, 1, None)
    two = paired([9, 9], [8, 8], higher_is_better=True)
    assert two.p == 0 and two.n == 2 and two.verdict is None
    assert welch([1.0, 2.0, 3.0], [9.0], higher_is_better=True).p is None
    with pytest.raises(ValueError, match="no values"):
        summary([])


def test_figures_that_do_not_vary() -> None:
    same = summary([0.97] * 3)
    assert (same.mean, same.sd, same.low, same.high) == (0.97, 0.0, 0.97, 0.97)
    smaller = paired([100, 100, 100], [400, 400, 400], higher_is_better=False)
    assert (smaller.difference, smaller.p, smaller.verdict) == (-300, 0, "better")
    assert smaller.low == smaller.high == -300
    assert paired([400] * 3, [400] * 3, higher_is_better=False).p == 1
    equal = welch([400, 400, 400], [400, 400, 400], higher_is_better=False)
    assert (equal.p, equal.verdict) == (1, "no evidence")
    assert not math.isnan(welch([5, 5, 5], [4, 4, 4], higher_is_better=True).difference)


def test_differences_that_agree_by_chance_are_no_certainty() -> None:
    # Three times one sample of 360 more, and the rounding of floats.
    a, b = [0.9, 0.95, 0.97], [0.9 - 1 / 360, 0.95 - 1 / 360, 0.97 - 1 / 360]
    found = paired(a, b, higher_is_better=True)
    assert found.p is not None and found.p > 0.05 and found.verdict == "no evidence"
    assert found.low is not None and found.low < 0 < found.difference
    constant = paired([1.0] * 3, [1 - 1 / 360] * 3, higher_is_better=True)
    assert constant.verdict == "no evidence"
    pages = paired([4096, 8192, 12288], [8192, 12288, 16384], higher_is_better=False)
    assert pages.verdict == "no evidence"
    # Five times in a row is no chance, nor is much more than a step.
    assert paired([*a, 0.91, 0.93], [*b, 0.91 - 1 / 360, 0.93 - 1 / 360],
                  higher_is_better=True).verdict == "better"  # fmt: skip
    sizes = paired([3000, 3001, 3002], [4000, 4001, 4002], higher_is_better=False)
    assert sizes.verdict == "better"
    same = paired(a, a, higher_is_better=True)
    assert (same.p, same.difference, same.verdict) == (1, 0, "no evidence")


def test_coarse_figures_give_no_more_false_verdicts_than_fine_ones() -> None:
    draw = random.Random(2)
    trials = 2000
    for seeds, samples in ((3, 100), (5, 360)):
        verdicts = 0
        for _ in range(trials):
            a, b = (
                [round(samples * draw.gauss(0.95, 0.006)) / samples for _ in range(seeds)]
                for _ in range(2)
            )
            verdicts += paired(a, b, higher_is_better=True).verdict != "no evidence"
        assert verdicts / trials < 0.07
