"""What the rows of several seeds add up to, and which differences are called real."""

import math
from statistics import mean, stdev
from typing import Any

import pytest
from seed_run_rows import rows

from netopt_cli.seed_rows import comparisons, summed_up


def verdicts(runs: dict[int, Any]) -> dict[tuple[str, str, str], str | None]:
    return {(c["stage"], c["against"], c["metric"]): c["verdict"] for c in comparisons(runs)}


def test_a_row_sums_up_its_seeds() -> None:
    seeds = (4, 0, 7)
    found = summed_up({seed: rows(seed) for seed in seeds}, seeds)
    assert [(row["stage"], row["role"], row["control"]) for row in found] == [
        ("baseline", "baseline", None),
        ("prune", "control", "baseline"),
        ("prune", "stage", "prune control"),
    ]
    accuracy = found[0]["accuracy"]
    values = [0.94, 0.9, 0.97]
    assert accuracy["values"] == pytest.approx(values)
    assert accuracy["mean"] == pytest.approx(mean(values))
    assert accuracy["sd"] == pytest.approx(stdev(values))
    reach = 4.302653 * stdev(values) / math.sqrt(3)
    assert accuracy["low"] == pytest.approx(mean(values) - reach, abs=1e-6)
    assert accuracy["high"] == pytest.approx(mean(values) + reach, abs=1e-6)
    assert accuracy["n"] == 3
    assert found[2]["size_packed_bytes"]["sd"] == 0
    assert found[2]["macs"] is None, "what no seed knows is not a number"
    assert "seed" not in found[0]


def test_a_seed_without_a_figure_keeps_its_place() -> None:
    broken = rows(1)
    broken[0]["loss"] = math.nan
    broken[0]["latency_ms_median"] = None
    found = summed_up({0: rows(0), 1: broken}, (0, 1, 2))
    assert found[0]["accuracy"]["values"] == pytest.approx([0.9, 0.91, None], nan_ok=True)
    for name in ("loss", "latency_ms_median"):
        assert found[0][name]["values"][1:] == [None, None]
        assert found[0][name]["n"] == 1
        assert (found[0][name]["sd"], found[0][name]["low"]) == (None, None)


def test_a_stage_that_one_seed_lacks_is_still_a_row() -> None:
    found = summed_up({0: rows(0)[:2], 1: rows(1)}, (0, 1))
    assert [row["stage"] for row in found] == ["baseline", "prune", "prune"]
    assert found[2]["accuracy"]["n"] == 1


def test_words_that_differ_are_all_named() -> None:
    other = rows(1)
    other[2]["control"] = "baseline"
    assert summed_up({0: rows(0), 1: other}, (0, 1))[2]["control"] == "prune control, baseline"


def test_verdicts_are_by_the_pairs_and_the_direction_of_the_column() -> None:
    # The seeds differ by 9 points, which a test that is not paired would drown in.
    worse = verdicts({seed: rows(seed, gain=-0.01) for seed in range(5)})
    assert worse["prune", "control", "accuracy"] == "worse"
    assert worse["prune", "control", "loss"] == "worse"
    assert worse["prune", "control", "size_packed_bytes"] == "better"
    assert worse["prune", "control", "size_bytes"] == "no evidence"
    assert worse["prune", "baseline", "accuracy"] == "no evidence"
    assert worse["prune control", "baseline", "accuracy"] == "better"
    assert ("prune control", "control", "accuracy") not in worse
    assert not any(stage == "baseline" or metric == "macs" for stage, _, metric in worse)
    better = verdicts({seed: rows(seed, gain=0.02) for seed in range(5)})
    assert better["prune", "control", "accuracy"] == "better"


def test_two_seeds_are_no_verdict() -> None:
    found = verdicts({seed: rows(seed, gain=0.2) for seed in range(2)})
    assert set(found.values()) == {None}


def test_only_seeds_that_have_both_rows_are_compared() -> None:
    runs = {seed: rows(seed, gain=0.02) for seed in range(4)}
    runs[3] = runs[3][:2]
    runs[2][0]["accuracy"] = None
    by = {
        (c["stage"], c["against"]): c["n"] for c in comparisons(runs) if c["metric"] == "accuracy"
    }
    assert by["prune", "control"] == 3
    assert by["prune", "baseline"] == 2
