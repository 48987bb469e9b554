"""A run against a baseline: what may not have become worse.

The tolerance by the spread of n seeds, for the mean of m new ones, is that of a prediction:
t(1 - false_alarm, n - 1) · sd · sqrt(1/n + 1/m) (Hahn and Meeker, "Statistical Intervals", 1991).
Only the baseline's sd goes into it. A test that took the spread of the new seeds too would pass a
run in which one of them diverged: the more it is off, the wider the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from netopt_cli.baseline_file import Baseline, BaselineRow, Figure, Ignore, MadeOf, Rule
from netopt_cli.columns import COSTS, LATENCY_RATIO, describe, figure_columns
from netopt_cli.metrics import ACCURACY, Metric, metric_named
from netopt_cli.run_groups import Group, Skipped, require_comparable
from netopt_cli.statistics import FEWEST, summary, t_quantile

NOTABLE_LOSS = 0.01
"""What a check ought to see the metric lose; one that cannot says so. A point of a fraction, and
that part of a plain number."""


@dataclass(frozen=True)
class Check:
    """A figure of a run against the baseline's, as texts for people.

    Attributes:
        row: The row, or the run.
        column: The column, `status` or `data`.
        passed: Whether it is as good, within the tolerance.
        verdict: `ok`, `better` (by more than the tolerance) or `FAIL`.
        message: What is wrong, a sentence; empty when nothing is.
    """

    row: str
    column: str
    passed: bool
    verdict: str
    baseline: str = ""
    received: str = ""
    change: str = ""
    allowed: str = ""
    message: str = ""


def default_rules(
    seeds: int, metric: str = ACCURACY, columns: Sequence[str] = (ACCURACY, *COSTS)
) -> dict[str, Rule | Ignore]:
    """The rules that a new baseline gets.

    What is counted is exact unless the seeds differ in it; what is packed depends on the trained
    weights; latency is a ratio to a row of the same run, and the clock of a shared machine allows
    no less than a quarter. Without a spread, one point of accuracy is allowed.

    Args:
        metric: The column that counts; others of the task are not checked.
        columns: All columns of figures.
    """
    checked = {
        metric: _metric_rule(metric_named(metric), has_spread=seeds >= FEWEST),
        "params": Rule(direction="lower"),
        "macs": Rule(direction="lower"),
        "size_bytes": Rule(direction="lower"),
        "size_gzip_bytes": Rule(direction="lower", relative=0.02, spread=True),
        "size_packed_bytes": Rule(direction="lower", relative=0.02, spread=True),
        "sparsity": Rule(direction="higher", absolute=0.001, spread=True),
        LATENCY_RATIO: Rule(direction="lower", relative=0.25),
        "peak_memory_bytes": Rule(direction="lower", relative=0.25, spread=True),
    }
    return {name: checked.get(name, "ignore") for name in (*columns, LATENCY_RATIO)}


def _metric_rule(metric: Metric, *, has_spread: bool) -> Rule:
    allowed = 0.003 if has_spread else NOTABLE_LOSS
    return Rule(
        direction="higher" if metric.higher_is_better else "lower",
        absolute=allowed if metric.is_fraction else None,
        relative=None if metric.is_fraction else allowed,
        spread=True if has_spread else None,
    )


def baseline_of(group: Group, previous: Baseline | None = None) -> Baseline:
    """The baseline that a run makes.

    Args:
        previous: The one that it replaces; what a person has changed in its rules stays.
    """
    run = group.any
    environment, git = run.get("environment", dict) or {}, run.get("git", dict) or {}
    made_of = MadeOf(
        run=group.name,
        command=" ".join(map(str, run.get("command", list) or ())),
        seeds=list(group.runs),
        started=run.get("started", str) or "",
        data=run.data,
        fingerprint=run.fingerprint,
        git_commit=str(git.get("commit", "")),
        processor=str(environment.get("processor", "")),
        metric=group.metric,
        protocol=group.protocol,
    )
    columns = figure_columns(list(group.rows.values()))
    rules = default_rules(len(group.runs), group.metric, columns)
    reference, false_alarm = "baseline", Baseline.model_fields["false_alarm"].default
    of_rows: dict[str, dict[str, Rule | Ignore] | Ignore] = {}
    if previous is not None:
        untouched = default_rules(
            len(previous.made_of.seeds), previous.made_of.metric, list(previous.rules)
        )
        rules |= {k: rule for k, rule in previous.rules.items() if rule != untouched.get(k)}
        of_rows = {name: row.rules for name, row in previous.rows.items()}
        reference, false_alarm = previous.reference, previous.false_alarm
    rows = {
        name: BaselineRow(
            role=row["role"],
            # A control is what a gain is measured by; nobody ships it.
            rules=of_rows.get(name, "ignore" if row["role"] == "control" else {}),
            figures={
                column: _figure(values)
                for column in (*columns, LATENCY_RATIO)
                if (values := _values(group, name, column, reference))
            },
        )
        for name, row in group.rows.items()
    }
    return Baseline(
        made_of=made_of, reference=reference, false_alarm=false_alarm, rules=rules, rows=rows
    )


def check(groups: Sequence[Group], skipped: Sequence[Skipped], baseline: Baseline) -> list[Check]:
    """Checks a run, of one group or none, against a baseline.

    Raises:
        InputError: The run has another metric, or its figures were taken in another way.
    """
    found = [_failed(each.name, "status", each.reason) for each in skipped]
    for group in groups:
        made_of = baseline.made_of
        require_comparable(group, group.name, made_of, "the baseline")
        if made_of.fingerprint and made_of.fingerprint != group.any.fingerprint:
            reason = f"the data are not those of the baseline ({made_of.data})"
            found.append(_failed(group.name, "data", reason))
        for name, row in baseline.rows.items():
            if row.rules == "ignore":
                continue
            if name not in group.rows:
                found.append(_failed(name, "row", "the run has no such row"))
                continue
            for column in row.figures:
                rule = baseline.rule(name, column)
                if rule is not None:
                    found.append(_check(group, name, column, rule, baseline))
    return found


def tolerance(rule: Rule, figure: Figure, seeds: int, false_alarm: float) -> float:
    """How far the mean of `seeds` new values may be from the baseline's, in the column's unit."""
    by_spread = 0.0
    if rule.uses_spread and figure.sd and figure.n >= FEWEST:
        tail = false_alarm / 2 if rule.direction == "both" else false_alarm
        error = figure.sd * math.sqrt(1 / figure.n + 1 / seeds)
        by_spread = t_quantile(1 - tail, figure.n - 1) * error
    return max(rule.absolute or 0.0, (rule.relative or 0.0) * abs(figure.mean), by_spread)


def doubts(baseline: Baseline, seeds: int) -> list[str]:
    """Where the seeds differ so much that a loss of a point would not be seen."""
    found = []
    column = baseline.made_of.metric
    metric = metric_named(column)
    for name, row in baseline.rows.items():
        rule, figure = baseline.rule(name, column), row.figures.get(column)
        if rule is None or figure is None:
            continue
        allowed = tolerance(rule, figure, seeds, baseline.false_alarm)
        if allowed > NOTABLE_LOSS * (1 if metric.is_fraction else abs(figure.mean)):
            found.append(
                f"{name}: {metric.title} may {'fall' if metric.higher_is_better else 'rise'} by "
                f"{metric.amount(allowed)}, for so much its seeds differ. More seeds, or a rule "
                "with 'absolute' and no 'spread', see smaller changes."
            )
    return found


def unchecked(groups: Sequence[Group], baseline: Baseline) -> list[str]:
    """The rows of a run that the baseline does not know."""
    return [name for group in groups for name in group.rows if name not in baseline.rows]


def _check(group: Group, row: str, column: str, rule: Rule, baseline: Baseline) -> Check:
    figure = baseline.rows[row].figures[column]
    values = _values(group, row, column, baseline.reference)
    expected = 1 if column == LATENCY_RATIO else len(group.runs)
    if len(values) < expected:
        of = f" in {expected - len(values)} of {expected} seeds" if expected > 1 else ""
        return _failed(row, column, f"the run has no such figure{of}")
    received = _figure(values)
    change = received.mean - figure.mean
    allowed = tolerance(rule, figure, received.n, baseline.false_alarm)
    worse = {"higher": -change, "lower": change, "both": abs(change)}[rule.direction]
    exceeds = abs(change) > allowed and not math.isclose(abs(change), allowed, rel_tol=1e-9)
    passed = worse <= 0 or not exceeds
    sign = {"higher": "-", "lower": "+", "both": "±"}[rule.direction]
    texts = {
        "baseline": _figure_text(column, figure),
        "received": _figure_text(column, received),
        "change": _amount(column, change, figure.mean, "+"),
        "allowed": sign + _amount(column, allowed, figure.mean, "") if allowed else "0",
    }
    message = (
        ""
        if passed
        else f"{column} of {row} was {texts['baseline']}, is {texts['received']}: "
        f"{texts['change']}, allowed {texts['allowed']}"
    )
    verdict = "FAIL" if not passed else "better" if worse < 0 and exceeds else "ok"
    return Check(row, column, passed, verdict, **texts, message=message)


def _failed(row: str, column: str, message: str) -> Check:
    return Check(row, column, passed=False, verdict="FAIL", message=f"{row}: {column}: {message}")


def _values(group: Group, row: str, column: str, reference: str) -> list[float]:
    """The figures of a row, a value a seed that has one; of the latency ratio one for all seeds."""
    if column != LATENCY_RATIO:
        return list(group.values(row, column).values())
    if row == reference or reference not in group.rows:
        return []
    mine = group.values(row, "latency_ms_median").values()
    other = group.values(reference, "latency_ms_median").values()
    # What else a machine does makes a network slower, at times twice, and never faster: the least
    # of the seeds is what it can do.
    return [min(mine) / min(other)] if mine and other and min(other) else []


def _figure(values: Sequence[float]) -> Figure:
    found = summary(values)
    return Figure(mean=found.mean, sd=found.sd, n=found.n, values=list(values))


def _figure_text(column: str, figure: Figure) -> str:
    return describe(column).text(figure.mean) + (f" (n={figure.n})" if figure.n > 1 else "")


def _amount(column: str, amount: float, mean: float, sign: str) -> str:
    """A change for a person: points of a fraction, per cent of anything else."""
    if describe(column).is_fraction:
        return f"{100 * amount:{sign}.2f} points"
    return f"{100 * amount / abs(mean):{sign}.2f} %" if mean else f"{amount:{sign}.4g}"
