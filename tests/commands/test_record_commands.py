"""`netopt runs`, `compare` and `check` as a user calls them."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from stored_runs import CONFIG, drawn, judged, rows, write_run, write_seeds

from netopt_cli import app
from netopt_cli.completion import candidates
from netopt_cli.errors import EXIT_FAILED, EXIT_OK, EXIT_WRONG_INPUT
from netopt_cli.run_dir import held

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs, a parent of seeds and a broken record, in runs/."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs")
    cnn = {"_target_": "netopt_cli.arch.cnn.build", "filters": [8]}
    write_run(folder / "a", found=rows(prune=0.90))
    write_run(folder / "b", found=rows(prune=0.97), config=CONFIG | {"arch": cnn},
              started="2026-11-20T10:00:00+00:00")  # fmt: skip
    write_run(folder / "c", status="failed", error="diverged", found=[])
    write_seeds(folder / "seeds", drawn(range(5), 0.95, 0.002, source=1))
    (write_run(folder / "z") / "record.json").write_text("{")
    return folder


def listed(capsys: Capture, *words: str) -> list[str]:
    assert app.main(["runs", "--format", "json", *words]) == EXIT_OK
    return [line["run"] for line in json.loads(capsys.readouterr().out)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["b", "a", "c", "seeds", "z"]),
        (["--reverse"], ["seeds", "a", "c", "b", "z"]),
        (["--arch", "c*"], ["b"]),
        (["--data", "digits", "--opt", "prune"], ["b", "a", "c", "seeds"]),
        (["--opt", "quantize"], []),
        (["--status", "failed"], ["c"]),
        (["--status", "broken"], ["z"]),
        (["--where", "accuracy>0.94", "--where", "accuracy<0.96"], ["seeds"]),
        (["--sort", "accuracy", "--limit", "2"], ["a", "seeds"]),
        (["--sort", "accuracy", "--reverse", "--limit", "1"], ["b"]),
        (["--since", "2026-11-24"], ["a", "c", "seeds"]),
        (["--last", "1"], ["seeds"]),
        (["--last", "0"], []),
        (["runs/seeds", "--limit", "2"], ["seed-0", "seed-1"]),
    ],
)
def test_runs_are_chosen_and_sorted(capsys: Capture, words: list[str], expected: list[str]) -> None:
    assert listed(capsys, *words) == expected


def test_a_run_that_was_killed_is_interrupted_everywhere(capsys: Capture) -> None:
    killed = write_run(Path("runs/k"), status="running")
    seeds = write_seeds(Path("runs/s"), drawn(range(3), 0.95, 0.002, source=1), status="running")
    assert listed(capsys, "--where", "status=interrupted") == ["k"]
    assert app.main(["check", "runs/a", "--baseline", "ci/b.json", "--update"]) == EXIT_OK
    assert app.main(["check", "runs/k", "--baseline", "ci/b.json"]) == EXIT_FAILED
    assert "interrupted" in capsys.readouterr().out
    for words in (["compare", "runs/k"], ["report", str(seeds)]):
        assert app.main(words) == EXIT_WRONG_INPUT
        assert "interrupted" in capsys.readouterr().err
    with held(killed):
        assert listed(capsys, "--status", "running") == ["k"]


def test_runs_as_table_and_csv(capsys: Capture) -> None:
    assert app.main(["runs"]) == EXIT_OK
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 2 + 5
    assert "97.00 %" in table[2] and "cnn" in table[2] and "0.8 kB" in table[2]
    assert app.main(["runs", "--format", "csv"]) == EXIT_OK
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [float(line["accuracy"]) for line in found if line["accuracy"]][:2] == [0.97, 0.90]
    assert found[2]["error"] == "diverged"


def test_a_stranger_cannot_steer_the_terminal(capsys: Capture) -> None:
    write_run(Path("runs/y"), config=CONFIG | {"opt": {"\x1b[2Jprune": {}}})
    assert app.main(["runs"]) == EXIT_OK
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs", "--sort", "acuracy"], "Did you mean 'accuracy'"),
        (["runs", "--limit", "-1"], "--limit"),
        (["runs", "nowhere"], "not a folder"),
        (["runs", "--whre", "x"], "Did you mean '--where'"),
        (["compare", "runs/x"], "leads to no run"),
        (["compare", "runs/a", "--cost", "size_byte"], "Did you mean 'size_bytes'"),
        (["compare", "runs/a", "--stage", "prun"], "Did you mean 'prune'"),
        (["compare", "runs/c"], "none of the runs is completed"),
        (["compare", "runs/z"], "ends in the middle"),
        (["check", "runs/a"], "--baseline"),
        (["check", "runs/a", "--baseline", "none.json"], "--update"),
        (["check", "runs/a", "runs/b", "--baseline", "x.json", "--update"], "one run"),
        (["check", "runs/c", "--baseline", "x.json", "--update"], "completed"),
        (["check", "runs/hollow", "--baseline", "x.json", "--update"], "after 0 of its seeds"),
        (["compare", "runs/hollow"], "after 0 of its seeds"),
        (["check", "runs/a", "--baseline", "no/x.json"], "--update"),
        (["check", "runs/a", "--baseline", "x.json", "--junit", "no/x.xml"], "folder that exists"),
    ],
)
def test_wrong_input_is_exit_2(capsys: Capture, words: list[str], message: str) -> None:
    for seed in write_seeds(Path("runs/hollow"), {0: rows()}).glob("seed-*"):
        shutil.rmtree(seed)
    assert app.main(words) == EXIT_WRONG_INPUT
    assert message in capsys.readouterr().err
    assert not Path("x.json").exists()


def test_compare_shows_seeds_verdict_front_and_configs(capsys: Capture) -> None:
    found = drawn(range(5), 0.90, 0.002, source=1)
    write_seeds(Path("runs/worse"), found)
    assert app.main(["compare", "runs/seeds", "runs/worse", "runs/b"]) == EXIT_OK
    text = capsys.readouterr().out
    first, worse, single = [line for line in text.splitlines() if line[:1].isdigit()]
    assert "0-4" in first and "±" in first
    assert "-5.00" in worse and "worse" in worse
    assert "*" in single and "*" not in first
    assert "paired two-sided t test" in text and "No verdict with fewer than 3 seeds" in text
    assert "netopt_cli.arch.cnn.build" in text and "opt.prune.sparsity" not in text


def test_compare_for_programs(capsys: Capture) -> None:
    words = ["compare", "runs/seeds", "runs/[ab]", "--cost", "packed_bytes", "--format"]
    assert app.main([*words, "json"]) == EXIT_OK
    result = json.loads(capsys.readouterr().out)
    assert [row["run"] for row in result["rows"]] == ["seeds", "a", "b"]
    assert result["cost"] == "size_packed_bytes"
    assert result["rows"][1]["accuracy_difference"] == pytest.approx(
        0.90 - result["rows"][0]["accuracy"]
    )
    assert set(result["config"]) == {"arch._target_"}
    assert app.main([*words, "csv"]) == EXIT_OK
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["n"] for row in table] == ["5", "1", "1"]
    assert app.main([*words, "markdown"]) == EXIT_OK
    assert "| 1 | seeds | prune | 0-4 |" in capsys.readouterr().out


def test_a_run_of_another_task_goes_through_all_commands(capsys: Capture) -> None:
    found = {seed: judged("rmse", 4.0, 4.1, 3.9 + 0.01 * seed) for seed in range(3)}
    write_seeds(Path("runs/errors"), found)
    write_run(Path("runs/d"), found=judged("ndcg_at_10", 0.3, 0.3, 0.4))
    assert app.main(["runs"]) == EXIT_OK
    table = capsys.readouterr().out.splitlines()
    assert "accuracy" in table[0] and "RMSE" in table[0] and "NDCG@10" in table[0]
    assert any(line.startswith("errors") and "3.91" in line for line in table)
    assert listed(capsys, "--where", "rmse<4", "--sort", "rmse") == ["errors"]
    assert app.main(["compare", "runs/errors", "--stage", "all"]) == EXIT_OK
    text = capsys.readouterr().out
    assert "RMSE" in text and "accuracy" not in text and "3.9100 ± 0.0100" in text
    assert app.main(["compare", "runs/errors", "--cost", "rmse"]) == EXIT_WRONG_INPUT
    assert "--cost must be a column other than rmse" in capsys.readouterr().err
    for words in (["compare", "runs/errors"], ["check", "--baseline", "x.json"]):
        if words[0] == "check":
            assert app.main([*words, "runs/errors", "--update"]) == EXIT_OK
            assert app.main([*words, "runs/errors"]) == EXIT_OK
            capsys.readouterr()
        assert app.main([*words, "runs/d"]) == EXIT_WRONG_INPUT
        error = capsys.readouterr().err
        assert "by rmse" in error and "by ndcg_at_10" in error


def test_check_gates_a_drop_and_reports_it(capsys: Capture) -> None:
    words = ["check", "--baseline", "baseline.json"]
    assert app.main([*words, "runs/seeds", "--update"]) == EXIT_OK
    write_seeds(Path("runs/again"), drawn(range(5, 10), 0.95, 0.002, source=2))
    found = drawn(range(5, 10), 0.95, 0.002, source=2)
    for of_seed in found.values():
        of_seed[2]["accuracy"] -= 0.01
    write_seeds(Path("runs/worse"), found)
    assert app.main([*words, "runs/again"]) == EXIT_OK
    capsys.readouterr()
    Path("summary.md").write_text("before\n")
    reports = ["--junit", "check.xml", "--summary", "summary.md"]
    assert app.main([*words, "runs/worse", *reports]) == EXIT_FAILED
    assert "1 of 17 checks failed" in capsys.readouterr().out
    suite = ElementTree.parse("check.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("17", "1")
    (failed,) = [case for case in suite if len(case)]
    assert (failed.get("classname"), failed.get("name")) == ("prune", "accuracy")
    assert "accuracy of prune was" in failed[0].get("message", "")
    summary = Path("summary.md").read_text()
    assert summary.startswith("before\n") and "| prune | accuracy |" in summary
    assert app.main([*words, "runs/c"]) == EXIT_FAILED, "a run that failed is no pass"


def test_a_baseline_can_be_made_of_runs_that_differ_in_their_seed(capsys: Capture) -> None:
    for seed in range(3):
        write_run(Path(f"sweep/{seed}"), seed)
    assert app.main(["check", "sweep", "--baseline", "x.json", "--update"]) == EXIT_OK
    assert "seeds: 0-2" in capsys.readouterr().out
    assert json.loads(Path("x.json").read_text())["made_of"]["seeds"] == [0, 1, 2]


@pytest.mark.parametrize(
    "words",
    [["runs"], ["compare", "runs/a", "runs/b"], ["check", "runs/a", "--baseline", "b.json"]],
)
def test_nothing_heavy_is_imported(words: list[str]) -> None:
    assert app.main(["check", "runs/a", "--baseline", "b.json", "--update"]) == EXIT_OK
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "netopt_cli.app", *words],
        capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "100"},
    )  # fmt: skip
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"tensorflow", "keras", "pandas", "numpy", "scipy", "hydra", "rich"} & modules


def test_completion_knows_the_options() -> None:
    assert {"--where", "--sort", "--format"} <= set(candidates("netopt runs --"))
    assert {"--cost", "--stage"} <= set(candidates("netopt compare runs/a --"))
    assert {"--baseline", "--update", "--junit"} <= set(candidates("netopt check runs/a --"))
