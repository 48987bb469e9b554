"""The table of a run, for terminals wide and narrow."""

import io

import pytest
from rich.console import Console

from netopt_cli.tables import COLUMNS, cells, header, markdown, terminal


def row(stage: str, role: str, accuracy: float, control: str | None) -> dict:
    figures = dict.fromkeys(COLUMNS, 1234.5)
    return figures | {
        "stage": stage, "role": role, "seed": 0, "accuracy": accuracy, "sparsity": 0.8,
        "control": control, "macs": None, "metric": "accuracy", "labels": None,
    }  # fmt: skip


ROWS = [
    row("baseline", "baseline", 0.9, None),
    row("regularize", "control", 0.91, "baseline"),
    row("regularize", "stage", 0.905, "regularize control"),
]


@pytest.mark.parametrize("width", [80, 200])
def test_a_row_is_a_line(width: int) -> None:
    console = Console(width=width, file=io.StringIO())
    console.print(terminal(ROWS, "a run", width))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    (stage,) = [line for line in lines if "-0.50" in line]
    (control,) = [line for line in lines if "+1.00" in line]
    assert stage.split()[0] == "regularize"
    assert control.split()[:2] == ["regularize", "control"]
    assert "90.50" in stage and "80.0" in stage
    assert ("metrics.md" in lines[-1]) == (width == 80)
    assert ("unknown" in stage) == (width == 200), "MACs that could not be counted are not a number"


def judged(metric: str, *scores: float) -> list[dict]:
    """The rows with these scores of another task, and one of its further metrics."""
    found = [each | {"metric": metric, metric: s} for each, s in zip(ROWS, scores, strict=True)]
    return [{k: v for k, v in each.items() if k != "accuracy"} | {"mae": 2.0} for each in found]


def test_another_metric_has_its_own_column_unit_and_name() -> None:
    error = cells(judged("rmse", 4.5, 4.25, 4.125))
    assert list(error)[:3] == ["stage", "RMSE", "change"]
    assert error["RMSE"] == ["4.5000", "4.2500", "4.1250"]
    assert error["change"] == ["", "-0.2500", "-0.1250"]
    share = cells(judged("hit_rate_at_10", 0.5, 0.6, 0.55))
    assert share["hit rate@10"] == ["50.00 %", "60.00 %", "55.00 %"]
    assert share["change"] == ["", "+10.00", "-5.00"]
    text = markdown(judged("rmse", 4.5, 4.25, 4.125))
    assert "RMSE, sparsity, bytes" in text and "change: difference of RMSE against" in text


def test_metrics_csv_has_the_metrics_of_its_rows_in_one_place() -> None:
    assert header(ROWS) == list(COLUMNS)
    other = header(judged("rmse", 4.5, 4.25, 4.125))
    place = COLUMNS.index("accuracy")
    assert other == [*COLUMNS[:place], "rmse", "mae", *COLUMNS[place + 1 :]]


def test_a_row_without_the_figure_is_still_a_row() -> None:
    found = judged("rmse", 4.5, 4.25, 4.125)
    del found[1]["rmse"]
    assert cells(found)["RMSE"] == ["4.5000", "", "4.1250"]
    assert cells(found)["change"] == ["", "", ""]


def test_markdown_has_every_row_and_says_what_the_figures_are() -> None:
    text = markdown(ROWS)
    assert text.count("| regularize") == 3
    assert "exported file" in text
