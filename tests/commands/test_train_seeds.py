"""`netopt train seeds=…` around runs that are played: directories, records, failures."""

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig
from seed_run_rows import rows

import netopt_cli
from netopt_cli import app, exit_table, export_table, robustness_table
from netopt_cli.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_WRONG_INPUT,
    DataError,
    DivergedError,
)

Act = Callable[[int], None]


class Stage:
    """Plays `netopt_cli.experiment`: writes a record, and fails where it is told to.

    Attributes:
        before: Called with the seed before its run begins.
        during: Called with the seed once it has begun.
        further: What the record of a seed has besides the rows.
    """

    def __init__(self) -> None:
        self.configs: list[DictConfig] = []
        self.parents: list[dict[str, Any]] = []
        self.before: Act = lambda seed: None
        self.during: Act = lambda seed: None
        self.further: Callable[[int], dict[str, Any]] = lambda seed: {}

    def run(
        self, config: DictConfig, run_dir: Path, *, started: Callable[[], None], **given: Any
    ) -> SimpleNamespace:
        self.configs.append(config)
        self.before(config.seed)
        facts = {"dataset": {"name": "digits"}, "pipeline": list(config.opt), "status": "failed"}
        (run_dir / "record.json").write_text(json.dumps(facts))
        started()
        self.parents.append(record_of(run_dir.parent))
        self.during(config.seed)
        found = rows(config.seed, gain=-0.01)
        done = facts | {"status": "completed", "rows": found} | self.further(config.seed)
        (run_dir / "record.json").write_text(json.dumps(done))
        return SimpleNamespace(rows=found)


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    played = Stage()
    monkeypatch.setitem(sys.modules, "netopt_cli.experiment", played)
    monkeypatch.setattr(netopt_cli, "experiment", played, raising=False)
    monkeypatch.chdir(tmp_path)
    return played


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text())


def at(seed: int, error: BaseException) -> Act:
    def act(which: int) -> None:
        if which == seed:
            raise error

    return act


def test_each_seed_is_a_run_inside_a_parent(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["train", "arch=mlp", "opt=prune", "seeds=[0,3,7]"]) == EXIT_OK
    captured = capfd.readouterr()
    shown = captured.out.splitlines()[-1]
    assert re.fullmatch(r"runs/\d{8}-\d{6}-mlp-prune", shown)
    parent = Path(shown)
    assert Path("runs/latest").resolve() == parent.resolve()
    assert sorted(path.name for path in parent.iterdir()) == [
        "config.yaml", "metrics.csv", "metrics.md", "record.json", "run.log",
        "seed-0", "seed-3", "seed-7",
    ]  # fmt: skip
    assert all((parent / run / "run.log").is_file() for run in ("seed-0", "seed-3", "seed-7"))
    assert [(config.seed, config.seeds) for config in experiment.configs] == [
        (0, None), (3, None), (7, None),
    ]  # fmt: skip
    record = record_of(parent)
    assert (record["kind"], record["status"], record["error"]) == ("seeds", "completed", None)
    assert record["seeds"] == [0, 3, 7]
    assert record["runs"] == ["seed-0", "seed-3", "seed-7"]
    assert record["failed"] == {}
    assert record["command"] == ["netopt", "train", "arch=mlp", "opt=prune", "seeds=[0,3,7]"]
    assert record["config"]["seeds"] == [0, 3, 7]
    assert record["dataset"] == {"name": "digits"} and record["pipeline"] == ["prune"]
    assert {"started", "ended", "wall_seconds", "environment", "git"} <= record.keys()
    assert record["rows"][0]["accuracy"]["values"] == pytest.approx([0.9, 0.93, 0.97])
    assert any(test["verdict"] == "worse" for test in record["comparisons"])
    assert "93.33 ± 3.51 %" in captured.out
    assert "paired two-sided t test" in captured.out
    assert "seed 7, 3 of 3" in captured.err


def test_the_parent_is_written_anew_after_each_seed(experiment: Stage) -> None:
    assert app.main(["train", "seeds=3", "opt=prune", "-q"]) == EXIT_OK
    for number, parent in enumerate(experiment.parents):
        assert parent["status"] == "running"
        assert len(parent["runs"]) == number + 1
        counts = [row["accuracy"]["n"] for row in parent["rows"]]
        assert counts == ([number] * 3 if number else [])


def test_json_is_one_line_with_the_tests(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["train", "seeds=2", "opt=prune", "--json", "-q"]) == EXIT_OK
    line, shown = capfd.readouterr().out.splitlines()
    result = json.loads(line)
    assert (result["run_dir"], result["status"], result["kind"]) == (shown, "completed", "seeds")
    assert result["seeds"] == [0, 1]
    assert result["rows"][0]["accuracy"]["n"] == 2
    assert {test["verdict"] for test in result["comparisons"]} == {None}


def further(seed: int) -> dict[str, Any]:
    """A run with early exits, two formats and attacks."""
    exported = dict.fromkeys(export_table.COLUMNS, 1000.0) | {"stage": "prune", "scheme": "int8"}
    attacked = dict.fromkeys(robustness_table.COLUMNS, 0.25)
    return {
        "exports": [
            exported | {"format": "litert", "latency_ms_median": 0.2 + seed, "fastest": seed == 0},
            exported | {"format": "onnx", "latency_ms_median": 0.9, "fastest": seed > 0},
        ],
        "exits": [
            dict.fromkeys(exit_table.COLUMNS, 10.0)
            | {"stage": "early_exit", "path": path, "policy": "entropy", "threshold": threshold,
               "accuracy": 0.9 + 0.01 * seed}
            for path, threshold in (("exit 1", 0.5 + seed), ("to the end", None))
        ],
        "robustness": [
            attacked | {"stage": "prune", "role": "stage", "seed": seed, "pgd": 0.2 + 0.1 * seed,
                        "samples": 50, "steps": 7, "sound": seed != 2}
        ],
    }  # fmt: skip


def test_the_further_tables_are_summed_up_as_well(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    experiment.further = further
    assert app.main(["train", "seeds=2", "opt=prune", "-q", "hydra.run.dir=parent"]) == EXIT_OK
    shown = capfd.readouterr().out
    assert "90.50 ± 0.71 %" in shown and "0.7000 ± 0.7071 ms" in shown, "exits and exports"
    assert "fastest export of prune: litert (int8) 0.7000 ms" in shown, "by the mean"
    assert "25.00 ± 7.07 %" in shown and "robustness: ε = 0.25, 7 steps" in shown
    for name, line in {
        "exports": "prune,onnx,int8,latency_ms_median,2,0.9,0,0.9,0.9",
        "exits": "early_exit,exit 1,threshold,2,1,0.7071068,",
        "robustness": "prune,stage,pgd,2,0.25,0.07071068,",
    }.items():
        assert f"\n{line}" in Path(f"parent/{name}.csv").read_text()
        text = Path(f"parent/{name}.md").read_text()
        assert text.endswith("\nMean ± sample standard deviation of seeds 0-1.\n")
    assert "to the end,threshold" not in Path("parent/exits.csv").read_text(), "it has none"
    assert "50 test samples" in Path("parent/robustness.md").read_text()
    assert "| sound |" in Path("parent/robustness.md").read_text()
    record = record_of(Path("parent"))
    assert record["exits"][0]["threshold"]["values"] == [0.5, 1.5]
    assert [row["fastest"] for row in record["exports"]] == [True, False]
    words = ["train", "seeds=3", "opt=prune", "-q", "--json", "hydra.run.dir=more"]
    assert app.main(words) == EXIT_OK
    result = json.loads(capfd.readouterr().out.splitlines()[0])
    assert result["robustness"][0]["sound"] is False, "one of the seeds is doubtful"
    assert result["kind"] == "seeds" and result["exits"][0]["accuracy"]["n"] == 3


@pytest.mark.parametrize("begun", [True, False])
def test_a_seed_that_fails_does_not_take_the_others_along(
    begun: bool, experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    fail = at(1, DivergedError("the loss is NaN"))
    setattr(experiment, "during" if begun else "before", fail)
    assert app.main(["train", "seeds=4", "opt=prune", "-q"]) == EXIT_FAILED
    captured = capfd.readouterr()
    parent = Path(captured.out.splitlines()[-1])
    assert captured.err.splitlines() == [
        "error in seed-1: the loss is NaN",
        "error: 1 of 4 seeds failed: seed-1; the table is made of the others",
        f"What is done is kept. Go on with: netopt resume {parent}",
    ]
    record = record_of(parent)
    assert record["status"] == "failed" and "1 of 4" in record["error"]
    assert record["failed"] == {"seed-1": "the loss is NaN"}
    assert ("seed-1" in record["runs"]) == begun
    assert record["rows"][0]["accuracy"]["n"] == 3
    assert record["rows"][0]["accuracy"]["values"][1] is None
    assert "seed-1 failed and is left out: the loss is NaN" in captured.out
    with (parent / "metrics.csv").open() as file:
        assert {line["n"] for line in csv.DictReader(file)} == {"3"}


def test_seeds_go_on_and_the_complete_ones_are_not_done_again(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "seeds=3", "opt=prune", "-q", "hydra.run.dir=parent"]
    experiment.during = at(1, DivergedError("the loss is NaN"))
    assert app.main(words) == EXIT_FAILED
    assert "Go on with: netopt resume parent" in capfd.readouterr().err
    assert app.main([*words, "opt.prune.epochs=9"]) == EXIT_WRONG_INPUT
    assert "a run of another config" in capfd.readouterr().err
    assert [config.seed for config in experiment.configs] == [0, 1, 2]
    experiment.during = lambda seed: None
    assert app.main(["resume", "parent", "-q"]) == EXIT_OK
    assert [config.seed for config in experiment.configs] == [0, 1, 2, 1]
    record = record_of(Path("parent"))
    assert record["status"] == "completed" and record["failed"] == {}
    assert record["rows"][0]["accuracy"]["n"] == 3


def test_seeds_that_another_process_works_on_are_left_to_it(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "seeds=2", "opt=prune", "-q", "hydra.run.dir=parent"]
    second: list[int] = []
    experiment.during = lambda seed: second.append(app.main(["resume", "parent", "-q"]))
    assert app.main(words) == EXIT_OK
    assert second == [EXIT_WRONG_INPUT] * 2
    assert "another process works in" in capfd.readouterr().err
    assert [config.seed for config in experiment.configs] == [0, 1]


def test_an_internal_error_is_in_the_log_of_its_seed(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    experiment.during = at(0, KeyError("gone"))
    assert app.main(["train", "seeds=2", "-q"]) == EXIT_FAILED
    captured = capfd.readouterr()
    assert "internal error in seed-0: KeyError: 'gone'" in captured.err
    assert "Traceback" not in captured.err
    parent = Path(captured.out.splitlines()[-1])
    assert "Traceback" in (parent / "seed-0" / "run.log").read_text()
    assert record_of(parent)["rows"][0]["accuracy"]["n"] == 1


def test_when_all_fail_there_is_no_table(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(seed: int) -> None:
        raise DivergedError(f"seed {seed} is NaN")

    experiment.during = fail
    assert app.main(["train", "seeds=2", "-q", "--json"]) == EXIT_FAILED
    captured = capfd.readouterr()
    line, shown = captured.out.splitlines()
    assert json.loads(line)["rows"] == []
    assert "2 of 2 seeds failed: seed-0, seed-1; none is left for a table" in captured.err
    assert not (Path(shown) / "metrics.csv").exists()


def test_a_config_that_cannot_work_leaves_nothing(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    experiment.before = at(0, DataError("data.path has no labels"))
    assert app.main(["train", "seeds=3"]) == EXIT_WRONG_INPUT
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("error: data.path has no labels\n")
    assert list(Path("runs").iterdir()) == []
    assert len(experiment.configs) == 1


def test_bad_input_of_a_later_seed_is_its_own(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    experiment.before = at(2, DataError("a class is missing from the validation split"))
    assert app.main(["train", "seeds=3", "-q"]) == EXIT_FAILED
    parent = Path(capfd.readouterr().out.splitlines()[-1])
    assert list(record_of(parent)["failed"]) == ["seed-2"]
    assert not (parent / "seed-2").exists()


@pytest.mark.parametrize("begun", [True, False])
def test_ctrl_c_stops_all_and_keeps_what_there_is(
    begun: bool, experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    setattr(experiment, "during" if begun else "before", at(1, KeyboardInterrupt()))
    assert app.main(["train", "seeds=5", "opt=prune", "-q"]) == EXIT_INTERRUPTED
    captured = capfd.readouterr()
    parent = Path(captured.out.splitlines()[-1])
    record = record_of(parent)
    assert record["status"] == "interrupted"
    assert record["runs"] == (["seed-0", "seed-1"] if begun else ["seed-0"])
    assert record["rows"][0]["accuracy"]["n"] == 1
    assert "4 of the 5 seeds did not end." in captured.out
    assert len(experiment.configs) == 2
    assert (parent / "seed-1").exists() == begun


def test_ctrl_c_before_anything_began_leaves_nothing(experiment: Stage) -> None:
    experiment.before = at(0, KeyboardInterrupt())
    assert app.main(["train", "seeds=5", "-q"]) == EXIT_INTERRUPTED
    assert list(Path("runs").iterdir()) == []


def test_each_cell_of_a_sweep_is_a_parent(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["train", "-m", "arch=mlp,lenet5", "seeds=2", "-q", "--json"]) == EXIT_OK
    *lines, shown = capfd.readouterr().out.splitlines()
    cells = sorted(path for path in Path(shown).iterdir() if path.is_dir())
    assert [json.loads(line)["kind"] for line in lines] == ["seeds", "seeds"]
    assert [cell.name for cell in cells] == ["0-mlp-none-seeds", "1-lenet5-none-seeds"]
    for cell in cells:
        assert record_of(cell)["runs"] == ["seed-0", "seed-1"]
    assert Path("runs/latest").resolve() == cells[-1].resolve()


def test_a_directory_of_the_user(experiment: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    assert app.main(["train", "seeds=2", "hydra.run.dir=mine", "-q"]) == EXIT_OK
    assert record_of(Path("mine"))["runs"] == ["seed-0", "seed-1"]
    assert not Path("runs").exists()
    assert app.main(["train", "seeds=3", "hydra.run.dir=mine"]) == EXIT_WRONG_INPUT
    assert "already holds the record" in capfd.readouterr().err


def test_a_scan_is_of_one_seed(experiment: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    assert app.main(["sensitivity", "seeds=2"]) == EXIT_WRONG_INPUT
    assert "give it one seed. Received: seeds=2" in capfd.readouterr().err


def test_workers_cannot_run_several_seeds(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["launch", "train", "seeds=2"]) == EXIT_WRONG_INPUT
    assert "seeds does not go with target=multi_worker" in capfd.readouterr().err
    assert not Path("runs").exists()
