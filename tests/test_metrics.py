"""The metrics that a run may be judged by."""

import subprocess
import sys

import pytest

from netopt_cli.errors import InputError, RecordError
from netopt_cli.metrics import find, metric_named, metric_of


def test_a_cut_off_is_part_of_the_name_for_any_k() -> None:
    found = find("ndcg_at_37")
    assert found is not None and found.title == "NDCG@37" and not found.is_fraction
    hits = find("hit_rate_at_10")
    assert hits is not None and hits.title == "hit rate@10" and hits.is_fraction
    assert [find(name) for name in ("ndcg_at_0", "ndcg_at_", "cups_at_3", "loss")] == [None] * 4


def test_a_person_reads_shares_in_per_cent_and_the_rest_as_numbers() -> None:
    share, error = metric_named("f1_macro"), metric_named("rmse")
    assert share.text(0.91234) == "91.23 %" and error.text(0.91234) == "0.9123"
    assert share.amount(-0.01, "+") == "-1.00 points" and error.amount(-0.01, "+") == "-0.0100"
    assert error.text(4.5) == "4.5000" and error.text(0) == "0.0000" and error.text(1e-5) == "1e-05"
    assert error.text(512.345) == "512.35"
    assert error.text(51234.4) == "51,234" and error.bare(51234.4, "+") == "+51,234"
    assert share.of_changes == "points of macro F1" and error.of_changes == "difference of RMSE"


@pytest.mark.parametrize(("name", "better"), [("auroc", 0.9), ("eer", 0.1), ("rmse", 0.1)])
def test_the_better_of_two_values(name: str, better: float) -> None:
    assert max(0.1, 0.9, key=metric_named(name).goodness) == better


def test_rows_say_what_counts_and_those_of_old_runs_mean_accuracy() -> None:
    assert metric_of([{"metric": "rmse"}, {"metric": "rmse"}]) == "rmse"
    assert metric_of([{"stage": "baseline"}]) == metric_of([]) == "accuracy"
    with pytest.raises(RecordError, match=r"one metric\. Received: accuracy, rmse"):
        metric_of([{"stage": "baseline"}, {"metric": "rmse"}])
    for wrong in ("rmsee", 3, ["rmse"]):
        with pytest.raises(RecordError, match="unknown metric of a run"):
            metric_of([{"metric": wrong}])


def test_an_unknown_metric_gets_the_nearest_one() -> None:
    with pytest.raises(InputError, match=r"unknown metric 'f1_makro'\. Did you mean 'f1_macro'"):
        metric_named("f1_makro")


def test_no_metric_needs_tensorflow() -> None:
    check = (
        "import sys, netopt_cli.metrics; sys.exit(bool({'tensorflow', 'numpy'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
