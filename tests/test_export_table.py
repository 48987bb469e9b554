"""The table of exported files, for terminals wide and narrow."""

import io

import pytest
from rich.console import Console

from netopt_cli.export_table import COLUMNS, fastest_lines, markdown, terminal, with_fastest


def row(stage: str, format_: str, latency_ms: float) -> dict:
    figures = dict.fromkeys(COLUMNS, 1234.5)
    return figures | {
        "stage": stage, "format": format_, "scheme": "float32", "accuracy": 0.9,
        "latency_ms_median": latency_ms, "runtime": "a runtime", "version": "1.2.3",
    }  # fmt: skip


ROWS = [
    *with_fastest([row("baseline", "litert", 0.5), row("baseline", "onnx", 0.25)]),
    *with_fastest([row("prune", "litert", 0.125), row("prune", "onnx", 0.25)]),
]


def test_one_file_of_each_stage_is_the_fastest():
    assert [r["fastest"] for r in ROWS] == [False, True, True, False]
    assert list(fastest_lines(ROWS)) == [
        "fastest export of baseline: onnx (float32) 0.2500 ms",
        "fastest export of prune: litert (float32) 0.1250 ms",
    ]


@pytest.mark.parametrize("width", [70, 200])
def test_a_row_is_a_line(width: int):
    console = Console(width=width, file=io.StringIO())
    console.print(terminal(ROWS, width))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    marked = [line.split()[:2] for line in lines if "fastest" in line]
    assert marked == [["baseline", "onnx"], ["prune", "litert"]]
    assert ("exports.md" in lines[-1]) == (width == 70)


def test_the_score_is_that_of_the_task():
    found = [each | {"metric": "eer", "eer": 0.125, "accuracy": None} for each in ROWS]
    text = markdown(found)
    assert "| EER |" in text and text.count("| 12.50 % |") == 4 and "accuracy" not in text


def test_markdown_has_every_row_and_the_fastest():
    text = markdown(ROWS)
    assert text.count("| baseline |") == text.count("| prune |") == 2
    assert "- fastest export of prune: litert" in text
