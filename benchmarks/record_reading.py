"""Seconds of `netopt runs` over 1,000 records and `netopt compare` over 100, start-up included.

    python -m benchmarks.record_reading RUN [--rounds 5]

Each record is a copy of that of RUN, a run directory, with a seed, a time and an accuracy of its
own. Each command is a process of its own; the median of the rounds is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

COMMANDS = (
    ("runs", "all"),
    ("runs", "all", "--where", "accuracy>0.5", "--sort", "size_bytes", "--format", "json"),
    ("compare", "all/run-00??"),
    ("compare", "all/run-00??", "--stage", "all", "--format", "markdown"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record_reading")
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    record = json.loads((arguments.run / "record.json").read_text())
    with TemporaryDirectory() as folder:
        size = _write(record, Path(folder) / "all")
        print(f"1,000 records of {size / 1000:.1f} kB")
        for words in COMMANDS:
            seconds = [_time(words, folder) for _ in range(arguments.rounds)]
            print(f"{statistics.median(seconds):.2f} s  netopt {' '.join(words)}")


def _write(record: dict, folder: Path) -> int:
    for number in range(1000):
        run = folder / f"run-{number:04}"
        run.mkdir(parents=True)
        record["seed"] = number
        # A config of its own, or all would be seeds of one.
        record["config"] |= {"seed": number, "number": number}
        record["started"] = f"2026-01-{1 + number % 28:02}T10:00:00+00:00"
        record["rows"][-1]["accuracy"] = number / 1000
        (run / "record.json").write_text(json.dumps(record, indent=2))
    return (run / "record.json").stat().st_size


def _time(words: tuple[str, ...], folder: str) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-m", "netopt_cli.app", *words]
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
