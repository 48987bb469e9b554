"""`netopt train` around an experiment that is played: directories, streams, exit codes."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import CommandLine
from omegaconf import DictConfig, OmegaConf
from user_configs import write_configs

import netopt_cli
from netopt_cli import app
from netopt_cli.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_WRONG_INPUT,
    DataError,
    DivergedError,
)
from netopt_cli.tables import COLUMNS
from netopt_cli.terminal import consoles

STAMP = r"\d{8}-\d{6}"
Act = Callable[[DictConfig, Path], None]


class Stage:
    """Plays `netopt_cli.experiment`; `act` is what the experiment does before it returns."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.act: Act = lambda config, run_dir: None

    def run(self, config: DictConfig, run_dir: Path, **given: Any) -> SimpleNamespace:
        self.calls.append({"config": config, "run_dir": run_dir, **given})
        self.act(config, run_dir)
        row: dict[str, Any] = dict.fromkeys(COLUMNS, np.float32(0.5))
        row |= {"stage": "baseline", "role": "baseline", "control": None, "loss": float("nan"),
                "metric": "accuracy"}  # fmt: skip
        return SimpleNamespace(run_dir=run_dir, rows=[row])


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    played = Stage()
    monkeypatch.setitem(sys.modules, "netopt_cli.experiment", played)
    monkeypatch.setattr(netopt_cli, "experiment", played, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    return played


def last_line(text: str) -> str:
    return text.rstrip("\n").rpartition("\n")[2]


def test_a_run_is_handed_over_and_its_directory_is_the_last_line(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    code = app.main(["train", "+arch=mlp", "+opt=[prune,quantize]", "--quiet", "seed=4"])
    out = capfd.readouterr().out
    assert code == EXIT_OK
    shown = last_line(out)
    assert re.fullmatch(rf"runs/{STAMP}-mlp-prune\+quantize", shown)
    assert "baseline" in out
    (call,) = experiment.calls
    assert call["run_dir"] == Path(shown).absolute()
    assert call["config"].seed == 4
    assert "hydra" not in call["config"]
    assert call["allow"] == ()
    assert call["quiet"] is True
    assert call["command"][:3] == ["netopt", "train", "+arch=mlp"]
    assert [path.name for path in Path(shown).iterdir()] == ["run.log"]


def test_json_is_one_line_before_the_directory(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["train", "--json", "opt=none"]) == EXIT_OK
    line, shown = capfd.readouterr().out.splitlines()
    result = json.loads(line)
    assert result["run_dir"] == shown
    assert result["status"] == "completed"
    (row,) = result["rows"]
    assert (row["accuracy"], row["loss"], row["control"]) == (0.5, None, None)


def test_runs_of_the_same_second_have_directories_of_their_own(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert app.main(["train", "hydra.run.dir=fixed", "-q"]) == EXIT_OK
    own = write_configs(Path("own"), experiment__here="# @package _global_\n"
                        "hydra: {run: {dir: runs/same}}\n")  # fmt: skip
    for _ in range(2):
        assert app.main(["train", "-cd", str(own), "experiment=here", "-q"]) == EXIT_OK
    shown = [line for line in capfd.readouterr().out.splitlines() if "/" in line or line == "fixed"]
    assert shown == ["fixed", "fixed", "runs/same", "runs/same-2"]


@pytest.mark.parametrize("name", ["it's here", "a,b=c", "x/y z"])
def test_any_name_of_a_directory_works(
    name: str, experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    quoted = name.replace("'", "\\'")
    assert app.main(["train", f"hydra.run.dir='{quoted}'"]) == EXIT_OK
    assert last_line(capfd.readouterr().out) == name
    assert (Path(name) / "run.log").is_file()


def test_native_chatter_goes_to_the_log(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    def chatter(config: DictConfig, run_dir: Path) -> None:
        os.write(1, b"Saved artifact\n")
        os.write(2, b"cuda drivers\n")
        consoles().err.print("epoch 1/1")

    experiment.act = chatter
    assert app.main(["train", "--json"]) == EXIT_OK
    captured = capfd.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert captured.err == "epoch 1/1\n"
    log = (Path(last_line(captured.out)) / "run.log").read_text()
    assert log == "Saved artifact\ncuda drivers\n"


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (DivergedError("the loss is NaN"), (EXIT_FAILED, "failed", "error: the loss is NaN\n")),
        (KeyboardInterrupt(), (EXIT_INTERRUPTED, "interrupted", "interrupted\n")),
        (KeyError("gone"), (EXIT_FAILED, "failed", "internal error: KeyError: 'gone'\n")),
        (OSError(28, "No space left", "x"), (EXIT_FAILED, "failed", "error: cannot write x: No")),
    ],
)
def test_a_run_that_fails_says_so_and_where(
    error: BaseException,
    answer: tuple[int, str, str],
    experiment: Stage,
    capfd: pytest.CaptureFixture[str],
) -> None:
    code, status, said = answer

    def fail(config: DictConfig, run_dir: Path) -> None:
        (run_dir / "record.json").write_text('{"rows": []}')
        raise error

    experiment.act = fail
    assert app.main(["train", "--json"]) == code
    captured = capfd.readouterr()
    line, shown = captured.out.splitlines()
    assert json.loads(line) == {"run_dir": shown, "rows": [], "status": status}
    assert captured.err.startswith(said)
    assert "Traceback" not in captured.err
    log = (Path(shown) / "run.log").read_text()
    assert ("Traceback" in log) == isinstance(error, KeyError)


def test_bad_input_that_is_found_by_the_experiment_leaves_nothing(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(config: DictConfig, run_dir: Path) -> None:
        raise DataError("data.path has no labels")

    experiment.act = refuse
    assert app.main(["train", "--json"]) == EXIT_WRONG_INPUT
    assert capfd.readouterr() == ("", "error: data.path has no labels\n")
    assert list(Path("runs").iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["arch=cnnn"],
        ["train.epoch=3"],
        ["data=npz"],
        ["arch._target_=os.system"],
        ["--resolve"],
        ["--cfg", "job", "-m"],
        ["-m", "arch=mlp,cnnn"],
        ["--cfg", "job", "--package", "nothing"],
    ],
)
def test_bad_input_makes_no_directory(
    words: list[str], experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["train", *words]) == EXIT_WRONG_INPUT
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert experiment.calls == []
    assert not Path("runs").exists()


def test_a_directory_that_cannot_be_used(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("done").mkdir()
    Path("done/record.json").touch()
    assert app.main(["train", "hydra.run.dir=done"]) == EXIT_WRONG_INPUT
    Path("runs").touch()
    assert app.main(["train"]) == EXIT_FAILED
    said = capfd.readouterr().err
    assert "error: done already holds the record of a run" in said
    assert "error: cannot write to runs: File exists" in said
    assert experiment.calls == []


def test_a_sweep_is_a_run_for_each_cell(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "-m", "arch=mlp,lenet5", "opt=none,[prune,quantize]"]
    assert app.main(words) == EXIT_OK
    shown = last_line(capfd.readouterr().out)
    assert re.fullmatch(rf"runs/{STAMP}-sweep", shown)
    cells = [call["run_dir"].name for call in experiment.calls]
    assert cells == [
        "0-mlp-none-seed0",
        "1-mlp-prune+quantize-seed0",
        "2-lenet5-none-seed0",
        "3-lenet5-prune+quantize-seed0",
    ]
    assert all((Path(shown) / cell / "run.log").is_file() for cell in cells)


def test_a_cell_that_fails_does_not_stop_the_sweep(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail_in_the_middle(config: DictConfig, run_dir: Path) -> None:
        (run_dir / "record.json").write_text('{"rows": []}')
        if config.seed == 1:
            raise DivergedError("the loss is NaN")

    experiment.act = fail_in_the_middle
    assert app.main(["train", "-m", "seed=0,1,2", "--json", "arch=mlp"]) == EXIT_FAILED
    captured = capfd.readouterr()
    *lines, shown = captured.out.splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["completed", "failed", "completed"]
    assert captured.err == "error in 1-mlp-none-seed1: the loss is NaN\n"
    assert Path(shown).name.endswith("-sweep")


def test_a_sweep_that_is_started_again_leaves_out_what_is_done(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    def work(config: DictConfig, run_dir: Path) -> None:
        (run_dir / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
        is_bad = config.seed == 1 and len(experiment.calls) == 2
        status = "failed" if is_bad else "completed"
        (run_dir / "record.json").write_text(json.dumps({"rows": [], "status": status}))
        if is_bad:
            raise DivergedError("the loss is NaN")

    experiment.act = work
    words = ["train", "-m", "seed=0,1,2", "hydra.sweep.dir=sweep"]
    assert app.main(words) == EXIT_FAILED
    assert app.main(words) == EXIT_OK
    assert [call["config"].seed for call in experiment.calls] == [0, 1, 2, 1]


def test_ctrl_c_ends_a_sweep(experiment: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt(config: DictConfig, run_dir: Path) -> None:
        raise KeyboardInterrupt

    experiment.act = interrupt
    assert app.main(["train", "-m", "seed=0,1"]) == EXIT_INTERRUPTED
    assert len(experiment.calls) == 1
    assert last_line(capfd.readouterr().out).endswith("-sweep")


@pytest.mark.slow
def test_a_sweep_that_an_experiment_names(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    own = write_configs(Path("own"), experiment__grid="# @package _global_\nhydra: {sweeper: "
                        "{params: {seed: '0,1', +opt: 'none,[prune,quantize]'}}}\n")  # fmt: skip
    assert app.main(["train", "-m", "-cd", str(own), "experiment=grid", "seed=5"]) == EXIT_OK
    assert [(c["config"].seed, list(c["config"].opt)) for c in experiment.calls] == [
        (5, []),
        (5, ["prune", "quantize"]),
    ]


def test_allow_finds_a_package_of_the_current_directory(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    own = write_configs(Path("own"))
    words = ["train", "--config-dir", str(own), "arch=mine"]
    assert app.main(words) == EXIT_WRONG_INPUT
    assert "--allow PACKAGE" in capfd.readouterr().err
    assert app.main([*words, "--allow", "mypackage", "--allow", "other"]) == EXIT_OK
    assert experiment.calls[0]["allow"] == ("mypackage", "other")
    assert sys.path[-1] == str(Path.cwd())


def test_cfg_is_the_same_for_every_spelling(
    experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for words in (["+arch=cnn", "+opt=[distill,prune]"], ["arch=cnn", "opt=[distill,prune]"]):
        assert app.main(["train", "--cfg", "job", *words]) == EXIT_OK
        shown.append(capfd.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[0].startswith("seed: 0\n")
    assert experiment.calls == []


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (["--cfg", "job", "--package", "train"], "# @package train"),
        (["--cfg", "job", "data=npz"], "path: ???"),
        (["--cfg", "hydra"], "output_subdir: null"),
        (["--cfg", "all", "seed=3"], "seed: 3"),
        (["--info", "defaults-tree"], "arch: cnn"),
        (["--info", "searchpath"], "Config search path"),
    ],
)
def test_what_hydra_shows(
    words: list[str], some: str, experiment: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["train", *words]) == EXIT_OK
    assert some in capfd.readouterr().out
    assert experiment.calls == []
    assert not Path("runs").exists()


def test_the_help_of_hydra(netopt: CommandLine) -> None:
    # In a process of its own: Hydra sets logging up anew, which closes the streams of others.
    done = netopt.alone("train", "--hydra-help")
    assert done.returncode == EXIT_OK
    assert "Hydra" in done.stdout


def test_flags_of_hydra_before_between_and_after(experiment: Stage) -> None:
    assert app.main(["train", "arch=mlp", "-m", "seed=0,1", "-q", "opt=none"]) == EXIT_OK
    assert [call["config"].seed for call in experiment.calls] == [0, 1]


def test_reserve_makes_the_directory_for_others(experiment: Stage) -> None:
    from netopt_cli.commands import train

    made = train.reserve(["arch=mlp", "opt=prune", "--quiet"])
    assert re.fullmatch(rf"runs/{STAMP}-mlp-prune", str(made))
    assert list(made.iterdir()) == []
