"""The table of a run, for terminals wide and narrow."""

import io

import pytest
from rich.console import Console

from netopt_cli.tables import COLUMNS, markdown, terminal


def row(stage: str, role: str, accuracy: float, control: str | None) -> dict:
    figures = dict.fromkeys(COLUMNS, 1234.5)
    return figures | {
        "stage": stage, "role": role, "seed": 0, "accuracy": accuracy, "sparsity": 0.8,
        "control": control, "macs": None, "metric": "accuracy",
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


def test_markdown_has_every_row_and_says_what_the_figures_are() -> None:
    text = markdown(ROWS)
    assert text.count("| regularize") == 3
    assert "exported file" in text
