"""The gate: what fails, what passes, and how often chance alone fails it."""

import json
import random
from pathlib import Path

import pytest
from stored_runs import drawn, judged, rows, write_run, write_seeds

from netopt_cli.baseline_file import Baseline, Figure, Rule, read, write
from netopt_cli.checking import Check, baseline_of, check, default_rules, doubts, tolerance
from netopt_cli.errors import InputError
from netopt_cli.run_groups import gather
from netopt_cli.statistics import summary

SD = 0.002  # of accuracy, over seeds


def made(folder: Path) -> Baseline:
    groups, _ = gather([str(folder)])
    return baseline_of(groups[0])


def failures(folder: Path, baseline: Baseline) -> list[Check]:
    groups, skipped = gather([str(folder)])
    return [each for each in check(groups, skipped, baseline) if not each.passed]


def test_a_planted_drop_of_a_point_fails_and_other_seeds_pass(tmp_path: Path) -> None:
    baseline = made(write_seeds(tmp_path / "good", drawn(range(5), 0.95, SD, source=1)))
    for run in range(10):
        seeds = range(10 + 5 * run, 15 + 5 * run)
        again = write_seeds(tmp_path / f"again{run}", drawn(seeds, 0.95, SD, source=2 + run))
        assert not failures(again, baseline)
        found = drawn(seeds, 0.95, SD, source=2 + run)
        for of_seed in found.values():
            of_seed[2]["accuracy"] -= 0.01
        worse = write_seeds(tmp_path / f"worse{run}", found)
        assert [(each.row, each.column) for each in failures(worse, baseline)] == [
            ("prune", "accuracy")
        ]


def test_chance_fails_an_unchanged_figure_as_often_as_is_said() -> None:
    random_ = random.Random(0)
    rule, trials, failed = Rule(direction="higher"), 4000, 0
    for _ in range(trials):
        old = summary([random_.gauss(0, 1) for _ in range(5)])
        new = summary([random_.gauss(0, 1) for _ in range(3)])
        figure = Figure(mean=old.mean, sd=old.sd, n=5)
        failed += old.mean - new.mean > tolerance(rule, figure, 3, 0.02)
    assert 0.013 < failed / trials < 0.027


def test_a_seed_that_diverged_does_not_widen_the_tolerance(tmp_path: Path) -> None:
    baseline = made(write_seeds(tmp_path / "good", drawn(range(5), 0.95, SD, source=1)))
    found = drawn(range(5, 10), 0.95, SD, source=2)
    found[7][2]["accuracy"] = 0.10
    worse = failures(write_seeds(tmp_path / "worse", found), baseline)
    assert [(each.row, each.column) for each in worse] == [("prune", "accuracy")]


def test_a_machine_twice_as_slow_passes_and_a_stage_twice_as_slow_fails(tmp_path: Path) -> None:
    baseline = made(write_run(tmp_path / "good"))
    slow = rows()
    for row in slow:
        for name in ("latency_ms_median", "latency_ms_p90", "train_seconds"):
            row[name] *= 2
    assert not failures(write_run(tmp_path / "machine", found=slow), baseline)
    slower = rows(latency_ms_median=0.04)
    failed = failures(write_run(tmp_path / "stage", found=slower), baseline)
    assert [(each.row, each.column) for each in failed] == [("prune", "latency_ratio")]
    assert "+100.00 %" in failed[0].message


def test_a_machine_that_is_busy_at_times_passes(tmp_path: Path) -> None:
    baseline = made(write_seeds(tmp_path / "good", drawn(range(5), 0.95, SD, source=1)))
    found = drawn(range(5, 10), 0.95, SD, source=2)
    for seed in (5, 6, 8, 9):
        found[seed][2]["latency_ms_median"] *= 2
    found[7][0]["latency_ms_median"] *= 2
    assert not failures(write_seeds(tmp_path / "busy", found), baseline)


def test_bytes_are_exact_one_way(tmp_path: Path) -> None:
    baseline = made(write_run(tmp_path / "good"))
    larger = write_run(tmp_path / "larger", found=rows(size_bytes=4001))
    assert [each.column for each in failures(larger, baseline)] == ["size_bytes"]
    smaller = write_run(tmp_path / "smaller", found=rows(size_bytes=3999))
    assert not failures(smaller, baseline)
    groups, _ = gather([str(smaller)])
    better = [each for each in check(groups, [], baseline) if each.verdict == "better"]
    assert [(each.row, each.column) for each in better] == [("prune", "size_bytes")]


def test_without_a_spread_a_point_is_allowed(tmp_path: Path) -> None:
    baseline = made(write_run(tmp_path / "good"))
    assert not failures(write_run(tmp_path / "a", found=rows(prune=0.93)), baseline)
    assert failures(write_run(tmp_path / "b", found=rows(prune=0.929)), baseline)


def errors(seeds: range, stage: float, source: int) -> dict[int, list]:
    random_ = random.Random(source)
    return {
        seed: judged("rmse", *(random_.gauss(mean, 0.004) for mean in (4.0, 4.0, stage)))
        for seed in seeds
    }


def test_a_planted_rise_of_an_error_fails_and_a_fall_is_better(tmp_path: Path) -> None:
    baseline = made(write_seeds(tmp_path / "good", errors(range(5), 4.0, source=1)))
    assert baseline.rules["rmse"] == Rule(direction="lower", relative=0.003, spread=True)
    assert "accuracy" not in baseline.rules and baseline.made_of.metric == "rmse"
    assert not failures(write_seeds(tmp_path / "same", errors(range(5, 10), 4.0, 2)), baseline)
    (failed,) = failures(write_seeds(tmp_path / "worse", errors(range(5, 10), 4.1, 2)), baseline)
    assert (failed.row, failed.column) == ("prune", "rmse") and failed.allowed.startswith("+")
    groups, _ = gather([str(write_seeds(tmp_path / "better", errors(range(5, 10), 3.9, 2)))])
    found = [each for each in check(groups, [], baseline) if each.verdict == "better"]
    assert [(each.row, each.column) for each in found] == [("prune", "rmse")]
    write(tmp_path / "baseline.json", baseline)
    assert read(tmp_path / "baseline.json") == baseline


def test_without_a_spread_a_point_or_a_hundredth_is_allowed(tmp_path: Path) -> None:
    share = made(write_run(tmp_path / "eer", found=judged("eer", 0.1, 0.1, 0.1)))
    assert not failures(write_run(tmp_path / "a", found=judged("eer", 0.1, 0.1, 0.11)), share)
    assert failures(write_run(tmp_path / "b", found=judged("eer", 0.1, 0.1, 0.111)), share)
    name = "ndcg_at_10"
    part = made(write_run(tmp_path / name, found=judged(name, 0.5, 0.5, 0.5)))
    assert not failures(write_run(tmp_path / "c", found=judged(name, 0.5, 0.5, 0.495)), part)
    assert failures(write_run(tmp_path / "d", found=judged(name, 0.5, 0.5, 0.494)), part)


def test_another_metric_or_protocol_than_the_baseline_is_refused(tmp_path: Path) -> None:
    of_classes = made(write_run(tmp_path / "good"))
    errors_ = write_run(tmp_path / "errors", found=judged("rmse", 4, 4, 4))
    with pytest.raises(InputError, match="errors by rmse, the baseline by accuracy"):
        failures(errors_, of_classes)
    data = {"name": "digits", "fingerprint_sha256": "f00d", "protocol": "sampled 100"}
    sampled = write_run(tmp_path / "sampled", dataset=data)
    with pytest.raises(InputError, match="sampled by 'sampled 100', the baseline by 'default'"):
        failures(sampled, of_classes)
    assert made(sampled).made_of.protocol == "sampled 100"


def test_a_baseline_of_an_older_netopt_means_accuracy(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    run = write_run(tmp_path / "good")
    write(path, made(run))
    content = json.loads(path.read_text())
    del content["made_of"]["metric"], content["made_of"]["protocol"]
    path.write_text(json.dumps(content))
    assert not failures(run, read(path))


def test_a_baseline_taken_over_by_another_metric_gets_its_rules(tmp_path: Path) -> None:
    before = made(write_run(tmp_path / "good"))
    groups, _ = gather([str(write_run(tmp_path / "errors", found=judged("rmse", 4, 4, 4)))])
    after = baseline_of(groups[0], before)
    assert after.rules["rmse"] == Rule(direction="lower", relative=0.01)
    assert "accuracy" not in after.rules


def test_what_is_missing_fails_and_says_so(tmp_path: Path) -> None:
    baseline = made(write_run(tmp_path / "good"))
    no_stage = failures(write_run(tmp_path / "a", found=rows()[:2]), baseline)
    assert [each.message for each in no_stage] == ["prune: row: the run has no such row"]
    no_macs = failures(write_run(tmp_path / "b", found=rows(macs=None)), baseline)
    assert [each.message for each in no_macs] == ["prune: macs: the run has no such figure"]
    failed = failures(write_run(tmp_path / "c", status="failed", error="diverged"), baseline)
    assert [each.message for each in failed] == ["c: status: failed: diverged"]
    other = failures(write_run(tmp_path / "d", fingerprint="other"), baseline)
    assert [each.column for each in other] == ["data"]
    found = drawn(range(3), 0.95, SD, source=1)
    found[1][2]["macs"] = None
    some = failures(write_seeds(tmp_path / "e", found, failed={"seed-3": "no memory"}), baseline)
    assert [each.message for each in some] == [
        "e/seed-3: status: failed: no memory",
        "prune: macs: the run has no such figure in 1 of 3 seeds",
    ]


def test_rules_of_a_person_are_kept_by_an_update_and_rules_of_a_row_go_first(
    tmp_path: Path,
) -> None:
    baseline = made(write_run(tmp_path / "good"))
    rules = baseline.rules | {"macs": "ignore", "size_bytes": Rule(direction="both", relative=0.1)}
    kept = baseline.rows["prune"].model_copy(update={"rules": {"accuracy": "ignore"}})
    edited = baseline.model_copy(
        update={"rules": rules, "rows": baseline.rows | {"prune": kept}, "false_alarm": 0.1}
    )
    write(tmp_path / "baseline.json", edited)
    worse = rows(prune=0.5, macs=9e9, size_bytes=3500)
    assert [each.column for each in failures(write_run(tmp_path / "a", found=worse), edited)] == [
        "size_bytes"
    ]
    groups, _ = gather([str(write_seeds(tmp_path / "b", drawn(range(5), 0.95, SD, 1)))])
    updated = baseline_of(groups[0], read(tmp_path / "baseline.json"))
    assert updated.rules["macs"] == "ignore" and updated.false_alarm == 0.1
    assert updated.rows["prune"].rules == {"accuracy": "ignore"}
    assert updated.rules["accuracy"] == default_rules(5)["accuracy"], "nobody had changed it"
    assert updated.rows["prune"].figures["accuracy"].n == 5


def test_a_spread_that_hides_a_point_is_said(tmp_path: Path) -> None:
    narrow = made(write_seeds(tmp_path / "a", drawn(range(5), 0.95, SD, source=1)))
    wide = made(write_seeds(tmp_path / "b", drawn(range(5), 0.9, 10 * SD, source=1)))
    assert not doubts(narrow, 5)
    assert len(doubts(wide, 5)) == 2
    found = {seed: judged("rmse", 4, 4, 4 + 0.1 * seed) for seed in range(3)}
    (doubt,) = doubts(made(write_seeds(tmp_path / "c", found)), 3)
    assert doubt.startswith("prune: RMSE may rise by 0.8")


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ('"direction": "lower"', '"direcion": "lower"', "Did you mean 'direction'"),
        ('"direction": "lower"', '"direction": "down"', "'higher', 'lower' or 'both'"),
        ('"relative": 0.02', '"relative": -0.02', "greater than or equal to 0"),
        ('"reference"', '"referenz"', "Did you mean 'reference'"),
        ('"format": 1', '"format": 2', "format"),
        ('"n": 1', '"n": 0', "greater than or equal to 1"),
        ("{", "", "no JSON"),
    ],
)
def test_a_wrong_baseline_file_says_where(tmp_path: Path, old: str, new: str, rule: str) -> None:
    path = tmp_path / "baseline.json"
    write(path, made(write_run(tmp_path / "good")))
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=rule) as raised:
        read(path)
    assert "baseline.json" in str(raised.value)
