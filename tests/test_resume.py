"""Runs that were killed or interrupted go on, from the command line."""

import csv
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command_line import CommandLine
from rich.console import Console

from benchmarks import kills
from netopt_cli import experiment
from netopt_cli.config import compose

FAST = (
    "data=digits", "arch=mlp", "train.epochs=1", "train.batch_size=200", "control=false",
    "target.timed_runs=5", "target.warmup_runs=1",
)  # fmt: skip


def trained_by(folder: Path) -> dict[str, str]:
    with (folder / "metrics.csv").open() as file:
        return {row["stage"]: row["trained_by"] for row in csv.DictReader(file)}


def test_killed_runs_end_as_undisturbed_ones(tmp_path: Path) -> None:
    shorter = ("control=false", "train.epochs=2", "opt.prune.epochs=2", "opt.distill.epochs=1",
               "opt.distill.teacher_epochs=1", "opt.qat.epochs=1")  # fmt: skip
    outcomes = kills.measure(tmp_path, kills=1, kills_per_run=1, seed=0, job=(*kills.JOB, *shorter))
    assert sum(outcome.kills for outcome in outcomes) == 1
    for outcome in outcomes:
        assert not outcome.differences, outcome


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that failed after its baseline was measured: there is no room for its next model."""
    folder = tmp_path_factory.mktemp("failed") / "run"
    folder.mkdir()
    (folder / "1-regularize").write_text("in the way")
    done = CommandLine(folder.parent)(
        "train", *FAST, "opt=regularize", "opt.regularize.epochs=1", "hydra.run.dir=run"
    )
    assert done.returncode == 1, done.stderr
    assert "Go on with: netopt resume run" in done.stderr
    (folder / "1-regularize").unlink()
    return folder


@pytest.fixture
def unfinished(failed: Path, netopt: CommandLine) -> Path:
    return Path(shutil.copytree(failed, netopt.folder / "run"))


def test_a_failed_run_goes_on_and_nothing_is_done_twice(
    netopt: CommandLine, unfinished: Path
) -> None:
    folder = unfinished
    before = json.loads((folder / "record.json").read_text())["rows"]
    assert [row["stage"] for row in before] == ["baseline"]
    done = netopt("resume", "run")
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "completed"
    assert record["rows"][0] == before[0], "not measured again, its latency neither"
    assert [row["stage"] for row in record["rows"]] == ["baseline", "regularize"]
    assert record["command"][:2] == ["netopt", "train"] and len(record["resumed"]) == 1
    assert not (folder / "checkpoints").exists()
    with (folder / "history.csv").open() as file:
        assert [row["stage"] for row in csv.DictReader(file)] == ["baseline", "regularize"]
    again = netopt("resume", "run")
    assert again.returncode == 0 and again.stdout == "run\n"


def test_the_same_command_goes_on_and_another_one_is_refused(
    netopt: CommandLine, unfinished: Path
) -> None:
    words = ("train", *FAST, "opt=regularize", "hydra.run.dir=run")
    other = netopt(*words, "opt.regularize.epochs=2")
    assert other.returncode == 2 and "another config" in other.stderr
    same = netopt(*words, "opt.regularize.epochs=1")
    assert same.returncode == 0, same.stderr
    assert "goes on with the run in" in same.stderr
    finished = netopt(*words, "opt.regularize.epochs=1")
    assert finished.returncode == 2 and "already holds the record of a run" in finished.stderr


def test_a_second_process_in_a_run_directory_is_refused(
    netopt: CommandLine, unfinished: Path
) -> None:
    held = os.open(unfinished, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    done = netopt("resume", "run")
    os.close(held)
    assert done.returncode == 2 and "another process works in" in done.stderr


@pytest.mark.slow
def test_a_run_on_a_full_disk_goes_on_when_there_is_room(netopt: CommandLine) -> None:
    disk = netopt.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        words = (*FAST, "opt=prune", "opt.prune.epochs=1", "hydra.run.dir=disk/run")
        done = netopt("train", *words)
        assert done.returncode == 1
        assert "no space is left" in done.stderr and "netopt resume disk/run" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        done = netopt("resume", "disk/run")
        assert done.returncode == 0, done.stderr
        assert list(trained_by(disk / "run")) == ["baseline", "prune"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no record.json"), ("{", "ends in the middle"), ("[]", "is no JSON object"),
     ('{"status": "failed", "kind": "sensitivity"}', "start it anew")],
)  # fmt: skip
def test_what_is_no_run_is_refused(netopt: CommandLine, content: str | None, message: str) -> None:
    folder = netopt.folder / "run"
    folder.mkdir()
    if content is not None:
        (folder / "record.json").write_text(content)
    done = netopt("resume", "run")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_another_pipeline_takes_the_baseline_over_and_other_data_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETOPT_CACHE", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    arrays = {
        "x_train": draw.integers(0, 256, (60, 6, 6, 1), np.uint8),
        "y_train": np.arange(60) % 3,
        "x_test": draw.integers(0, 256, (30, 6, 6, 1), np.uint8),
        "y_test": np.arange(30) % 3,
    }
    data = tmp_path / "data.npz"
    np.savez(data, **arrays)
    words = [*FAST, "data=npz", f"data.path={data}", "train.batch_size=10"]

    def run(name: str, *more: str) -> dict[str, str]:
        config = compose([*words, *more])
        folder = tmp_path / name
        folder.mkdir()
        experiment.run(
            config, folder, allow=(), command=[], messages=Console(quiet=True), quiet=True
        )
        return trained_by(folder)

    first = run("a", "opt=regularize", "opt.regularize.epochs=1")
    assert first == {"baseline": "", "regularize": ""}
    second = run("b", "opt=prune", "opt.prune.epochs=1")
    assert second == {"baseline": "earlier run", "prune": ""}
    arrays["x_train"][0, 0, 0, 0] ^= 1
    np.savez(data, **arrays)
    assert run("c") == {"baseline": ""}


def test_the_cache_can_be_left_alone(netopt: CommandLine) -> None:
    done = netopt("train", "--no-cache", "--cfg", "job")
    assert done.returncode == 0 and "\ncache: false\n" in done.stdout
