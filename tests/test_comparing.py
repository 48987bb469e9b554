"""Runs as seeds of one, and beside one another."""

import csv
import io
from pathlib import Path

import pytest
from stored_runs import CONFIG, judged, row, rows, write_run, write_seeds

from netopt_cli.comparing import compare, config_differences
from netopt_cli.comparison_tables import as_csv, as_rows, columns, footnotes
from netopt_cli.errors import InputError, RecordError
from netopt_cli.run_groups import gather
from netopt_cli.statistics import PAIRED_TEST, WELCH_TEST


def seeds(*accuracies: float, first: int = 0) -> dict[int, list]:
    return {seed: rows(prune=each) for seed, each in enumerate(accuracies, first)}


def test_single_runs_that_differ_in_the_seed_are_seeds_of_one(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write_run(tmp_path / f"a{seed}", seed)
    other = CONFIG | {"train": {"epochs": 9}}
    write_run(tmp_path / "b0", 0, config=other)
    write_run(tmp_path / "c0", 0, fingerprint="other data")
    write_run(tmp_path / "d1", 1, git={"commit": "later"})
    write_run(tmp_path / "e1", 1)  # the same as a1 once more
    groups, skipped = gather([str(tmp_path)])
    found = [(group.name, list(group.runs)) for group in groups]
    assert found == [
        ("a0 (+2)", [0, 1, 2]), ("b0", [0]), ("c0", [0]), ("d1", [1]), ("e1", [1])
    ]  # fmt: skip
    assert not skipped


def test_two_parents_of_the_same_config_stay_two(tmp_path: Path) -> None:
    write_seeds(tmp_path / "a", seeds(0.9, 0.91))
    write_seeds(tmp_path / "b", seeds(0.9, 0.91))
    groups, _ = gather([str(tmp_path / "a"), str(tmp_path / "b")])
    assert [group.name for group in groups] == ["a", "b"]


def test_what_is_not_complete_is_left_out_and_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a", status="failed", error="diverged")
    write_run(tmp_path / "b", status="running")
    write_seeds(tmp_path / "c", seeds(0.9, 0.91), failed={"seed-2": "no memory"})
    groups, skipped = gather([str(tmp_path)])
    assert [list(group.runs) for group in groups] == [[0, 1]]
    reasons = {each.name: each.reason for each in skipped}
    assert reasons == {"a": "failed: diverged", "b": "interrupted", "c/seed-2": "failed: no memory"}


def test_the_same_seeds_are_paired_and_others_are_not(tmp_path: Path) -> None:
    # A gain of a point on every seed, far less than the seeds differ by.
    write_seeds(tmp_path / "a", seeds(0.80, 0.90, 0.95))
    write_seeds(tmp_path / "b", seeds(0.81, 0.9101, 0.9599))
    write_seeds(tmp_path / "c", seeds(0.81, 0.9101, 0.9599, first=1))
    write_seeds(tmp_path / "d", seeds(0.81, 0.9101, 0.9599), fingerprint="other")
    groups, _ = gather([str(tmp_path)])
    _, b, c, d = compare(groups, "last", "size_bytes")
    assert b.differences["accuracy"].test == PAIRED_TEST
    assert b.differences["accuracy"].by.verdict == "better"
    for line in (c, d):
        assert line.differences["accuracy"].test == WELCH_TEST
        assert line.differences["accuracy"].by.verdict == "no evidence"
    assert b.differences["accuracy"].by.difference == pytest.approx(0.01)


def test_less_is_better_of_a_cost(tmp_path: Path) -> None:
    for name, size in (("a", 4000), ("b", 3000)):
        found = {seed: rows(size_bytes=size + seed) for seed in range(3)}
        write_seeds(tmp_path / name, found)
    groups, _ = gather([str(tmp_path)])
    line = compare(groups, "last", "size_bytes")[1]
    assert line.differences["size_bytes"].by.verdict == "better"


def errors(*scores: float) -> dict[int, list]:
    return {seed: judged("rmse", 5.0, 5.0, each) for seed, each in enumerate(scores)}


def test_less_is_better_of_an_error(tmp_path: Path) -> None:
    write_seeds(tmp_path / "a", errors(4.0, 4.1, 4.2))
    write_seeds(tmp_path / "b", errors(3.0, 3.1, 3.21))
    write_seeds(tmp_path / "c", errors(5.0, 5.1, 5.21))
    groups, _ = gather([str(tmp_path)])
    lines = compare(groups, "last", "size_bytes")
    assert [line.differences["rmse"].by.verdict for line in lines[1:]] == ["better", "worse"]
    assert [line.on_front for line in lines] == [False, True, False]
    texts = columns(lines, "size_bytes")
    assert list(texts)[4:6] == ["RMSE", "change"] and texts["change"][0] == ""
    assert float(texts["change"][1]) == pytest.approx(-0.9967, abs=1e-4)
    notes = "\n".join(footnotes(lines, "size_bytes"))
    assert "change: difference of RMSE against a." in notes
    table = list(csv.DictReader(io.StringIO(as_csv(lines, "size_bytes"))))
    assert "accuracy" not in table[0] and table[1]["rmse_verdict"] == "better"


def test_more_is_better_of_a_ranking(tmp_path: Path) -> None:
    for name, score in (("a", 0.4), ("b", 0.41)):
        found = judged("ndcg_at_10", 0.3, 0.3, score, hit_rate_at_10=0.5)
        write_run(tmp_path / name, found=found, config=CONFIG | {"seed_of": name})
    groups, _ = gather([str(tmp_path)])
    lines = compare(groups, "last", "size_bytes")
    assert [line.on_front for line in lines] == [False, True]
    texts = columns(lines, "size_bytes")
    assert texts["NDCG@10"] == ["0.4000", "0.4100"] and texts["change"][1] == "+0.0100"
    assert as_rows(lines)[0]["hit_rate_at_10"] == 0.5, "further metrics are for programs"


def test_figures_of_different_metrics_or_protocols_are_not_compared(tmp_path: Path) -> None:
    for name, protocol in (("full", "full ranking"), ("sampled", "sampled 100"), ("plain", "")):
        data = {"name": "ratings", "fingerprint_sha256": "f", "protocol": protocol}
        write_run(tmp_path / name, found=judged("ndcg_at_10", 0.3, 0.3, 0.4), dataset=data)
    write_run(tmp_path / "digits")
    for words, message in (
        (["full", "sampled"], "full by 'full ranking', sampled by 'sampled 100'"),
        (["full", "plain"], "full by 'full ranking', plain by 'default'"),
        (["full", "digits"], "full by ndcg_at_10, digits by accuracy"),
    ):
        groups, _ = gather([str(tmp_path / word) for word in words])
        assert len(groups) == 2
        with pytest.raises(InputError, match=message):
            compare(groups, "last", "size_bytes")


def test_a_metric_of_another_version_is_named_with_its_run(tmp_path: Path) -> None:
    write_run(tmp_path / "a", found=judged("quality", 1, 1, 1))
    groups, _ = gather([str(tmp_path)])
    with pytest.raises(RecordError, match="a: unknown metric of a run: 'quality'"):
        compare(groups, "last", "size_bytes")


def test_fewer_than_three_seeds_give_no_verdict(tmp_path: Path) -> None:
    write_seeds(tmp_path / "a", seeds(0.80, 0.81))
    write_seeds(tmp_path / "b", seeds(0.90, 0.91))
    groups, _ = gather([str(tmp_path)])
    line = compare(groups, "last", "size_bytes")[1]
    assert line.differences["accuracy"].by.difference == pytest.approx(0.1)
    assert line.differences["accuracy"].by.verdict is None


def test_the_front_is_what_nothing_dominates(tmp_path: Path) -> None:
    points = {"a": (0.95, 4000), "b": (0.94, 4000), "c": (0.90, 1000), "d": (0.89, 2000),
              "e": (0.95, 4000), "f": (0.99, None)}  # fmt: skip
    for name, (accuracy, size) in points.items():
        found = [row("baseline", "baseline", accuracy=accuracy, size_bytes=size)]
        write_run(tmp_path / name, found=found, config=CONFIG | {"opt": {name: {}}})
    groups, _ = gather([str(tmp_path)])
    lines = compare(groups, "last", "size_bytes")
    assert [line.group.name for line in lines if line.on_front] == ["a", "c", "e"]


def test_stages_by_name_and_all(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", found=[row("baseline", "baseline")], config=CONFIG | {"opt": {}})
    groups, _ = gather([str(tmp_path)])
    assert [(line.group.name, line.row) for line in compare(groups, "prune control", "macs")] == [
        ("a", "prune control")
    ]
    everything = compare(groups, "all", "macs")
    assert [line.row for line in everything] == ["baseline", "prune control", "prune", "baseline"]
    assert everything[-1].differences["accuracy"].by.difference == 0
    with pytest.raises(RecordError, match="Did you mean 'prune'"):
        compare(groups, "prunes", "macs")


def test_only_what_differs_in_the_configs(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(
        tmp_path / "b",
        config=CONFIG
        | {"opt": {"prune": CONFIG["opt"]["prune"] | {"sparsity": 0.5}, "fold": {}},
           "arch": {"_target_": "netopt_cli.arch.cnn.build", "filters": [8]}},
        environment={"processor": "B", "cores": 2, "packages": {"keras": "3.15.0"}},
    )  # fmt: skip
    groups, _ = gather([str(tmp_path)])
    assert config_differences(groups) == {
        "opt": ["prune", "prune,fold"],
        "arch._target_": ["netopt_cli.arch.mlp.build", "netopt_cli.arch.cnn.build"],
        "opt.prune.sparsity": ["0.8", "0.5"],
        "processor": ["A, 2 cores", "B, 2 cores"],
    }
