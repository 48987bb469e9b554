"""Kills a run at random moments, goes on with it, and compares its end with an undisturbed one.

    python -m benchmarks.kills [--kills 100] [--kills-per-run 5] [--seed 0] [--folder FOLDER]

The job has three stages: pruning along a schedule, distillation, quantization-aware training, each
with its control. A killed process gets SIGKILL and can do nothing about it. Exit code 1 when a run
does not go on, or ends with another figure in any column of metrics.csv but those that are times,
memory, or say where a training came from. Results are written to FOLDER/kills.csv as they come.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

JOB = (
    "data=digits", "arch=mlp", "train.epochs=3", "opt=[prune,distill,qat]",
    "opt.prune.epochs=3", "opt.distill.epochs=2", "opt.distill.start=current",
    "opt.distill.teacher=mlp", "opt.distill.teacher_epochs=2", "opt.qat.epochs=2",
    "target.timed_runs=20", "target.warmup_runs=5", "train.batch_size=32", "train.steps_per_call=5",
    "checkpoint_seconds=0.1", "cache=false",
)  # fmt: skip
NOT_REPEATED = {
    "latency_ms_median", "latency_ms_p90", "train_seconds", "trained_by", "peak_memory_bytes",
}  # fmt: skip
STARTS_SECONDS = 4.0
"""Before so much time the process imports TensorFlow: few of the kills shall hit that."""


@dataclass(frozen=True)
class Outcome:
    """Attributes:
    kills: How often the run was killed.
    at: Where it was each time: the last line of its log.
    differences: Cells of its metrics that are not those of the undisturbed run.
    """

    kills: int
    at: tuple[str, ...]
    differences: tuple[str, ...]


def start(folder: Path, job: Sequence[str], *, resume: bool) -> subprocess.Popen[bytes]:
    words = ["resume", str(folder)] if resume else ["train", *job, f"hydra.run.dir={folder}"]
    return subprocess.Popen(
        [sys.executable, "-m", "netopt_cli.app", *words, "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(folder: Path, job: Sequence[str], *, resume: bool) -> float:
    """Lets a run come to its end and returns its seconds."""
    started = time.monotonic()
    process = start(folder, job, resume=resume)
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{folder.name} does not go on: {said.decode()}")
    return time.monotonic() - started


def killed_run(
    folder: Path, job: Sequence[str], kills: int, seconds: float, draw: random.Random
) -> tuple[str, ...]:
    """Starts a run and kills it, again and again, before it ends; returns where it was."""
    at: list[str] = []
    while len(at) < kills:
        process = start(folder, job, resume=(folder / "record.json").exists())
        try:
            _, said = process.communicate(timeout=draw.uniform(STARTS_SECONDS, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            log = folder / "run.log"
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            at.append(lines[-1] if lines else "before the first line")
            continue
        if process.returncode:
            raise RuntimeError(f"{folder.name} does not go on: {said.decode()}")
        break  # It was faster; what is left of its kills falls to another run.
    return tuple(at)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def differences(reference: list[dict[str, str]], found: list[dict[str, str]]) -> tuple[str, ...]:
    if len(reference) != len(found):
        return (f"{len(found)} rows in place of {len(reference)}",)
    return tuple(
        f"{right['stage']} {right['role']} {column}: {row[column]} for {value}"
        for right, row in zip(reference, found, strict=True)
        for column, value in right.items()
        if column not in NOT_REPEATED and row[column] != value
    )


def measure(
    folder: Path, kills: int, kills_per_run: int, seed: int, job: Sequence[str] = JOB
) -> list[Outcome]:
    """Runs until there have been so many kills."""
    reference = folder / "undisturbed"
    seconds = finish(reference, job, resume=False)
    draw = random.Random(seed)
    outcomes: list[Outcome] = []
    while sum(outcome.kills for outcome in outcomes) < kills:
        left = kills - sum(outcome.kills for outcome in outcomes)
        run = folder / f"run-{len(outcomes)}"
        at = killed_run(run, job, min(kills_per_run, left), seconds, draw)
        finish(run, job, resume=(run / "record.json").exists())
        assert json.loads((run / "record.json").read_text())["status"] == "completed"
        outcomes.append(Outcome(len(at), at, differences(rows(reference), rows(run))))
        shutil.rmtree(run)
        with (folder / "kills.csv").open("a", newline="") as file:
            for place in at:
                csv.writer(file).writerow([run.name, place, "; ".join(outcomes[-1].differences)])
    return outcomes


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kills-per-run", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args(argv)
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    outcomes = measure(folder, arguments.kills, arguments.kills_per_run, arguments.seed)
    wrong = [outcome for outcome in outcomes if outcome.differences]
    kills = sum(outcome.kills for outcome in outcomes)
    print(f"{kills} kills in {len(outcomes)} runs; {len(wrong)} of them ended otherwise ({folder})")
    for outcome in wrong:
        print(*outcome.differences, *outcome.at, sep="\n  ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
