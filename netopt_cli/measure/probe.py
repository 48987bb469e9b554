"""Latency and memory of an exported file, measured in a fresh process that holds nothing else.

`probe` starts `python -m netopt_cli.measure.probe FILE` and reads the JSON that it prints. The
process imports NumPy and the runtime of the file's format; for a LiteRT or ONNX file not
TensorFlow, whose threads and memory would be measured too.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from netopt_cli.contracts import Timing
from netopt_cli.export.formats import FORMATS, Format
from netopt_cli.measure import own_process

_RUNTIMES: dict[Format, str] = {
    "litert": "netopt_cli.measure.runtime",
    "onnx": "netopt_cli.measure.onnx_runtime",
    "saved_model": "netopt_cli.measure.saved_model_runtime",
}
"""The module whose `prepare` loads a file of the format: imported in the process alone."""

_WARMUP_S = 0.3
_TIMED_S = 1.0
_LEAST_WARMUP_RUNS = 3
_LEAST_TIMED_RUNS = 30


@dataclass(frozen=True)
class Probe:
    """What the process measured.

    Attributes:
        latency_ms_median: Of one inference at batch 1, without copying the input and the output.
        latency_ms_p90: Its 90th percentile.
        latency_ms_mean: Its mean.
        peak_memory_bytes: From just before the file is loaded to the peak of the resident memory:
            weights, activations, and what the runtime touches of itself.
        warmup_runs: Inferences before the timed ones; fewer than asked for when they take long.
        timed_runs: Inferences timed; fewer than asked for when they take long.
    """

    latency_ms_median: float
    latency_ms_p90: float
    latency_ms_mean: float
    peak_memory_bytes: int
    warmup_runs: int
    timed_runs: int


def probe(
    file: Path, timing: Timing, format_: Format = "litert", samples: np.ndarray | None = None
) -> Probe:
    """Measures `file`, or the directory of a SavedModel, in a new process.

    Args:
        samples: Of `litert` alone: float32 (n, *shape), timed in turn, for a file whose time
            depends on its input; None times one sample of noise.

    Raises:
        RunError: The process failed or took more than ten minutes.
    """
    with TemporaryDirectory() as folder:
        options = []
        if samples is not None:
            path = Path(folder) / "samples.npy"
            np.save(path, samples)
            options = ["--samples", str(path)]
        return _in_a_process(file, timing, format_, options)


def _in_a_process(file: Path, timing: Timing, format_: Format, options: list[str]) -> Probe:
    arguments = [str(file.resolve()), "--format", format_, *options]
    for name, value in asdict(timing).items():
        arguments += [f"--{name}", str(value)]
    printed = own_process.run("netopt_cli.measure.probe", arguments, str(file))
    return Probe(**json.loads(printed))


def main(arguments: list[str]) -> None:
    """Prints the `Probe` of a file as JSON."""
    parser = argparse.ArgumentParser(prog="python -m netopt_cli.measure.probe")
    parser.add_argument("file", type=Path)
    parser.add_argument("--format", choices=FORMATS, default="litert")
    parser.add_argument("--samples", type=Path)
    parser.add_argument("--device", default=Timing.device)
    parser.add_argument("--threads", type=int, default=Timing.threads)
    parser.add_argument("--warmup_runs", type=int, default=Timing.warmup_runs)
    parser.add_argument("--timed_runs", type=int, default=Timing.timed_runs)
    options = vars(parser.parse_args(arguments))
    file, format_, samples = options.pop("file"), options.pop("format"), options.pop("samples")
    print(json.dumps(asdict(_measure(file, Timing(**options), format_, samples))))


def _measure(
    file: Path, timing: Timing, format_: Format = "litert", samples: Path | None = None
) -> Probe:
    # Before memory is looked at: both load modules.
    runtime = importlib.import_module(_RUNTIMES[format_])
    random = np.random.default_rng(0)
    before = start_of_peak()
    if samples is None:
        infer = runtime.prepare(file, timing, random)
    else:
        infer = runtime.prepare_samples(file, timing, np.load(samples, allow_pickle=False))
    warmup = _time_runs(infer, timing.warmup_runs, _LEAST_WARMUP_RUNS, _WARMUP_S)
    timed = _time_runs(infer, timing.timed_runs, _LEAST_TIMED_RUNS, _TIMED_S)
    peak = peak_resident_bytes()
    return Probe(
        latency_ms_median=float(np.median(timed)),
        latency_ms_p90=float(np.percentile(timed, 90)),
        latency_ms_mean=float(np.mean(timed)),
        peak_memory_bytes=max(0, peak - before),
        warmup_runs=len(warmup),
        timed_runs=len(timed),
    )


def _time_runs(
    infer: Callable[[], object], runs: int, least_runs: int, seconds: float
) -> list[float]:
    """Milliseconds of each of `runs` inferences; ends early after `seconds` and `least_runs`."""
    milliseconds: list[float] = []
    end = time.perf_counter() + seconds
    while len(milliseconds) < runs:
        if len(milliseconds) >= least_runs and time.perf_counter() > end:
            break
        start = time.perf_counter_ns()
        infer()
        milliseconds.append((time.perf_counter_ns() - start) / 1e6)
    return milliseconds


def start_of_peak() -> int:
    """Makes the peak start anew at the memory in use now, and returns it in bytes.

    Linux does that when 5 is written to `clear_refs`. Where it cannot be done the old peak stays,
    and the growth that is reported is a lower bound.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_resident_bytes()


def peak_resident_bytes() -> int:
    """`VmHWM` on Linux, `ru_maxrss` elsewhere.

    Not `ru_maxrss` on Linux, where a process inherits the peak of the one that started it.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    main(sys.argv[1:])
