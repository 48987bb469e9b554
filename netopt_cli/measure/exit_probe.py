"""Time of each sample through a network with early exits, in a fresh process without TensorFlow.

`probe_exits` starts `python -m netopt_cli.measure.exit_probe FOLDER` and reads what that leaves.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from netopt_cli.contracts import Timing
from netopt_cli.measure import own_process
from netopt_cli.measure.exit_policy import NEVER, Uncertainty
from netopt_cli.measure.probe import peak_resident_bytes, start_of_peak
from netopt_cli.measure.segment_runtime import SegmentChain

PASSES = 5
"""Times that each sample is timed. The least counts: a sample takes the same way each time, and
what is above that is other work of the machine."""

_BLOCK = 50
"""Samples in a row through one network, before the other one gets the same ones."""


@dataclass(frozen=True)
class ExitFiles:
    """Where the files of a network with early exits are.

    Attributes:
        segments: In the order in which they run.
        whole: Of the same network without its exits.
    """

    segments: Sequence[Path]
    whole: Path


@dataclass(frozen=True)
class ExitProbe:
    """What the process measured, sample by sample in the order they were given.

    Attributes:
        latency_ms: float (n,): from the input that the first segment reads to the logits, with the
            decisions and what is handed from segment to segment.
        whole_ms: float (n,): the same for the network without exits.
        left_at: int (n,): the exit, counted from 0.
        peak_memory_bytes: Growth of the resident memory by the segments.
    """

    latency_ms: np.ndarray
    whole_ms: np.ndarray
    left_at: np.ndarray
    peak_memory_bytes: int


def probe_exits(
    files: ExitFiles, samples: np.ndarray, rule: str, thresholds: np.ndarray, timing: Timing
) -> ExitProbe:
    """Times samples through the segments and through the network without exits, in turns.

    Args:
        samples: float32 (n, *shape), normalized.
        rule: See `ExitPolicy`.
        thresholds: Of the exits.

    Raises:
        RunError: The process failed or took more than ten minutes.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "in.npz", samples=samples, thresholds=thresholds)
        task = {
            "segments": [str(path.resolve()) for path in files.segments],
            "whole": str(files.whole.resolve()),
            "rule": rule,
            "timing": asdict(timing),
        }
        (folder / "task.json").write_text(json.dumps(task))
        own_process.run("netopt_cli.measure.exit_probe", [str(folder)], "the segments")
        with np.load(folder / "out.npz", allow_pickle=False) as found:
            return ExitProbe(
                found["latency_ms"],
                found["whole_ms"],
                found["left_at"],
                int(found["peak_memory_bytes"]),
            )


def main(folder: Path) -> None:
    """Writes the fields of an `ExitProbe` to `out.npz` in the folder of the task."""
    task = json.loads((folder / "task.json").read_text())
    with np.load(folder / "in.npz", allow_pickle=False) as given:
        samples, thresholds = given["samples"], given["thresholds"].tolist()
    timing = Timing(**task["timing"])
    before = start_of_peak()
    chain = SegmentChain([Path(path) for path in task["segments"]], timing)
    uncertainty = Uncertainty(task["rule"])
    for x in chain.input_of(samples[: timing.warmup_runs]):
        chain.leave(x[np.newaxis], uncertainty, [NEVER] * len(thresholds))
    memory = max(0, peak_resident_bytes() - before)
    inputs = chain.input_of(samples)
    alone = SegmentChain([Path(task["whole"])], timing)
    whole_inputs = alone.input_of(samples)
    for x in whole_inputs[: timing.warmup_runs]:
        alone.leave(x[np.newaxis], uncertainty, [])

    def leave(number: int) -> int:
        return chain.leave(inputs[number : number + 1], uncertainty, thresholds)[0]

    def go_through(number: int) -> int:
        return alone.leave(whole_inputs[number : number + 1], uncertainty, [])[0]

    times = np.empty((2, PASSES, len(samples)))
    exits = np.empty(len(samples), int)
    for turn in range(PASSES):
        for start in range(0, len(samples), _BLOCK):
            block = range(start, min(start + _BLOCK, len(samples)))
            for number in block:
                times[0, turn, number], exits[number] = _timed(leave, number)
            for number in block:
                times[1, turn, number], _ = _timed(go_through, number)
    latency_ms, whole_ms = times.min(axis=1)
    np.savez(
        folder / "out.npz",
        latency_ms=latency_ms,
        whole_ms=whole_ms,
        left_at=exits,
        peak_memory_bytes=memory,
    )


def _timed(run: Callable[[int], int], number: int) -> tuple[float, int]:
    """Milliseconds, and what `run` returns."""
    start = time.perf_counter_ns()
    result = run(number)
    return (time.perf_counter_ns() - start) / 1e6, result


if __name__ == "__main__":
    main(Path(sys.argv[1]))
