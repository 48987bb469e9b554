"""Sixteen runs at once in one `runs/`: each has a directory of its own, and `latest` is one."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from netopt_cli.files import write_text
from netopt_cli.run_dir import LATEST, RECORD, point_latest, reserve_run_dir

RUNS = 16
ROUNDS = 5


def start(base: Path, number: int, together: Any, made: Any) -> None:
    """What a run does before and while it trains, several times over."""
    for _ in range(ROUNDS):
        together.wait()
        directory = reserve_run_dir(base, "20260101-000000-cnn-prune")
        write_text(directory / RECORD, json.dumps({"run": number}))
        point_latest(base / LATEST, directory)
        latest = (base / LATEST).resolve()  # never gone, never half written
        made.put((directory.name, number, json.loads((latest / RECORD).read_text())["run"]))


def test_runs_that_start_at_once_share_nothing(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    together, made = spawn.Barrier(RUNS, timeout=120), spawn.Queue()
    base = tmp_path / "runs"
    processes = [spawn.Process(target=start, args=(base, n, together, made)) for n in range(RUNS)]
    for process in processes:
        process.start()
    found = [made.get(timeout=240) for _ in range(RUNS * ROUNDS)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len({name for name, _, _ in found}) == RUNS * ROUNDS
    for name, number, _ in found:
        assert json.loads((base / name / RECORD).read_text()) == {"run": number}
    names = {entry.name for entry in base.iterdir()}
    assert names == {name for name, _, _ in found} | {LATEST}  # and no temporary link is left
    assert (base / LATEST).resolve().name in names


@pytest.mark.slow
def test_sixteen_trainings_at_once(tmp_path: Path) -> None:
    words = ["arch=mlp", "arch.hidden=[8]", "train.epochs=1", "target.timed_runs=30"]
    command = [sys.executable, "-m", "netopt_cli.app", "train", "--json", "--quiet", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [*command, f"seed={seed}"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(RUNS)
    ]
    said = [process.communicate(timeout=1_200)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * RUNS
    directories = [tmp_path / lines[-1] for lines in said]
    assert len(set(directories)) == RUNS
    for seed, (directory, lines) in enumerate(zip(directories, said, strict=True)):
        record = json.loads((directory / RECORD).read_text())
        assert (record["seed"], record["status"]) == (seed, "completed")
        assert [row["accuracy"] for row in record["rows"]] == [
            row["accuracy"] for row in json.loads(lines[-2])["rows"]
        ]
        assert (directory / "0-baseline" / "model.tflite").stat().st_size > 0
    assert (tmp_path / "runs" / LATEST).resolve() in [each.resolve() for each in directories]
