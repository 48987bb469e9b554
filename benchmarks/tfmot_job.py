"""One job by TFMOT and by netopt, each in its own environment, in turns; files measured alike.

    python -m benchmarks.tfmot_job mnist10k.npz [--seeds 3] [--folder FOLDER]

Train a cnn of 241,546 parameters for 8 epochs on 28x28 digits, then make it small. TFMOT prunes
80 % of the weights and quantizes with training in the loop (benchmarks/tfmot/job.py, the way of its
guides). netopt runs `experiment=tfmot_job`, without controls for the time, as TFMOT has none, and
with them for the row that its accuracy is compared with. The time is that of the whole process,
from its start to its files. TFMOT's environment is made by pip the first time, outside the time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent / "tfmot"


@dataclass(frozen=True)
class Outcome:
    """A file of one of them: `seconds` of the process that made it, the rest measured here."""

    name: str
    seed: int
    accuracy: float
    size_bytes: int
    packed_bytes: int
    latency_ms: float
    seconds: float


def environment(folder: Path) -> Path:
    """Returns the Python of TFMOT's environment, which is made when it is missing."""
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True)
        requirements = str(HERE / "requirements.txt")
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
        (folder / "ready").touch()
    return python


def run(command: Sequence[str | Path], log: Path) -> float:
    """Runs a command and returns its seconds."""
    started = time.perf_counter()
    with log.open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=output, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed, see {log}")
    return time.perf_counter() - started


def measured(name: str, file: Path, data: Path, seed: int, seconds: float) -> Outcome:
    """Measures a .tflite file on the test split, whoever made it."""
    from netopt_cli.contracts import Timing
    from netopt_cli.export.packed import pack
    from netopt_cli.measure.probe import probe
    from netopt_cli.measure.runtime import LitertRunner

    with np.load(data, allow_pickle=False) as arrays:
        x = arrays["x_test"][..., np.newaxis].astype(np.float32) / 255
        y = arrays["y_test"]
    content = file.read_bytes()
    (logits,) = LitertRunner(content, Timing(), os.cpu_count() or 1).logits([x])
    return Outcome(
        name,
        seed,
        float(np.mean(logits.argmax(axis=-1) == y)),
        len(content),
        len(pack(content)),
        probe(file, Timing()).latency_ms_median,
        seconds,
    )


def netopt(folder: Path, data: Path, seed: int, *, control: bool) -> tuple[Path, float]:
    name = f"netopt-{seed}-{'control' if control else 'alone'}"
    command = [
        sys.executable, "-m", "netopt_cli.app", "train", "experiment=tfmot_job",
        f"data.path={data}", f"seed={seed}", f"control={str(control).lower()}",
        "cache=false",  # the time is that of the whole job
        f"hydra.run.dir={folder / name}",
    ]  # fmt: skip
    return folder / name, run(command, folder / f"{name}.log")


def outcomes_of(folder: Path, python: Path, data: Path, seed: int) -> list[Outcome]:
    theirs = folder / f"tfmot-{seed}"
    theirs.mkdir()
    job: list[str | Path] = [python, HERE / "job.py", data, theirs, str(seed)]
    seconds = run(job, folder / f"tfmot-{seed}.log")
    found = [
        measured(f"TFMOT {part}", theirs / f"{part}.tflite", data, seed, seconds)
        for part in ("baseline", "prune", "qat")
    ]
    alone, seconds = netopt(folder, data, seed, control=False)
    for stage in sorted(alone.glob("*/model.tflite")):
        found.append(measured(f"netopt {stage.parent.name}", stage, data, seed, seconds))
    with_control, _ = netopt(folder, data, seed, control=True)
    for stage in sorted(with_control.glob("*-control/model.tflite")):
        found.append(measured(f"netopt {stage.parent.name}", stage, data, seed, np.nan))
    return found


def table(outcomes: list[Outcome]) -> Table:
    shown = Table(title="mean over the seeds (time: of the whole process)", title_justify="left")
    for column in ("file", "accuracy", "lowest", "bytes", "packed", "latency", "time"):
        shown.add_column(column, justify="left" if column == "file" else "right", no_wrap=True)
    for name in dict.fromkeys(outcome.name for outcome in outcomes):
        rows = [outcome for outcome in outcomes if outcome.name == name]

        def mean(field: str, rows: list[Outcome] = rows) -> float:
            return statistics.fmean(getattr(row, field) for row in rows)

        shown.add_row(
            name, f"{100 * mean('accuracy'):.2f} %",
            f"{100 * min(row.accuracy for row in rows):.2f} %", f"{mean('size_bytes'):,.0f}",
            f"{mean('packed_bytes'):,.0f}", f"{mean('latency_ms'):.4f} ms",
            "" if np.isnan(mean("seconds")) else f"{mean('seconds'):.1f} s",
        )  # fmt: skip
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="an .npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/tfmot_job"))
    options = parser.parse_args()

    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True)
    python = environment(folder.parent / ".tfmot")
    outcomes: list[Outcome] = []
    for seed in range(options.seeds):
        outcomes += outcomes_of(folder, python, options.data.resolve(), seed)
        lines: list[dict[str, Any]] = [asdict(outcome) for outcome in outcomes]
        (folder / "outcomes.json").write_text(json.dumps(lines, indent=2))
        Console(width=120).print(table(outcomes))


if __name__ == "__main__":
    main()
