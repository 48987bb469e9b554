"""The table of several seeds, for terminals wide and narrow, and its files."""

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from seed_run_rows import errors, rows

from netopt_cli import seed_tables
from netopt_cli.seed_rows import comparisons, summed_up
from netopt_cli.tables import Row


def record(
    seeds: int,
    *,
    of: int | None = None,
    gain: float = 0.0,
    failed: dict[str, str] | None = None,
    made: Callable[..., list[Row]] = rows,
) -> dict[str, Any]:
    runs = {seed: made(seed, gain=gain) for seed in range(seeds)}
    wanted = list(range(of or seeds))
    return {
        "seeds": wanted, "failed": failed or {}, "rows": summed_up(runs, wanted),
        "comparisons": comparisons(runs),
    }  # fmt: skip


def printed(content: dict[str, Any], width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    for part in seed_tables.terminal(content, "runs", width):
        console.print(part)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 220])
def test_a_row_has_its_deviation_interval_and_verdict(width: int) -> None:
    lines = printed(record(5, gain=-0.01), width)
    assert max(map(len, lines)) <= width
    (stage,) = [line for line in lines if line.split()[:2] == ["prune", "5"]]
    assert "92.00 ± 1.58 %" in stage
    assert "worse" in stage and "-1.08" in stage
    assert "90.04 … 93.96" in stage, "the interval is the last that a narrow table does without"
    text = " ".join(" ".join(lines).split())
    assert "paired two-sided t test over seeds, alpha 0.05" in text
    assert "seeds 0-4" in text


def test_less_of_an_error_is_better() -> None:
    content = record(5, gain=0.01, made=errors)
    lines = printed(content, 220)
    (stage,) = [line for line in lines if line.split()[:2] == ["prune", "5"]]
    assert "0.6000 ± 0.1581" in stage and "0.4037 … 0.7963" in stage
    assert "-0.0920" in stage and "better" in stage
    assert "change: difference of RMSE against" in " ".join(" ".join(lines).split())
    text = seed_tables.markdown(content)
    assert "| RMSE | prune | control | -0.0920 |" in text and "RMSE, sparsity, bytes" in text
    table = csv.DictReader(io.StringIO(seed_tables.csv(content["rows"], content["comparisons"])))
    found = {line["metric"]: line for line in table if line["role"] == "stage"}
    assert found["rmse"]["control_verdict"] == "better" and "accuracy" not in found


def test_two_seeds_say_why_there_is_no_verdict() -> None:
    text = "\n".join(printed(record(2, gain=0.5), 200))
    assert "No verdict with fewer than 3 seeds." in text
    assert "better" not in text


def test_one_seed_has_no_deviation() -> None:
    text = "\n".join(printed(record(1), 200))
    assert "90.00 %" in text and "90.00 ±" not in text


def test_seeds_that_failed_or_wait_are_named() -> None:
    text = "\n".join(printed(record(3, of=5, failed={"seed-3": "opt=[a] is NaN"}), 200))
    assert "seed-3 failed and is left out: opt=[a] is NaN" in text
    assert "1 of the 5 seeds did not end." in text
    assert printed({"seeds": [0], "failed": {"seed-0": "no"}, "rows": [], "comparisons": []}, 80)


def test_markdown_has_the_differences_that_there_are() -> None:
    text = seed_tables.markdown(record(5, gain=-0.01))
    assert "| prune control | 5 | 93.08 ±" in text
    assert "| accuracy | prune | control | -1.08 points |" in text
    assert "| packed | prune | control | -0.8 kB |" in text
    assert "| file | prune |" not in text, "the files are of the same size"
    assert "exported file" in text


def test_csv_is_a_line_for_each_row_and_figure() -> None:
    content = record(5, gain=-0.01)
    text = seed_tables.csv(content["rows"], content["comparisons"])
    lines = list(csv.DictReader(io.StringIO(text)))
    assert list(lines[0]) == list(seed_tables.CSV_COLUMNS)
    (line,) = [each for each in lines if (each["stage"], each["role"], each["metric"]) ==
               ("prune", "stage", "accuracy")]  # fmt: skip
    assert float(line["mean"]) == pytest.approx(0.92)
    assert (line["n"], line["control_verdict"]) == ("5", "worse")
    assert float(line["baseline_difference"]) == pytest.approx(0.0, abs=1e-9)
    assert float(line["low"]) < 0.92 < float(line["high"])
    assert not any(each["metric"] == "macs" for each in lines)
