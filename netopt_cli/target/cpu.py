"""One CPU."""

from __future__ import annotations

from netopt_cli.contracts import Target, Timing
from netopt_cli.hardware import Count, TimingDevice, one_device, prepare_host


def build(
    *,
    threads: Count | None = None,
    timing_device: TimingDevice = "cpu",
    timing_threads: Count = 1,
    warmup_runs: Count = 50,
    timed_runs: Count = 500,
) -> Target:
    """Returns the CPU, also where there is a GPU.

    Args:
        threads: Threads of training; None is all cores.
        timing_device, timing_threads, warmup_runs, timed_runs: See `contracts.Timing`.
    """
    prepare_host(threads)
    return Target(
        name="cpu",
        strategy=one_device("/cpu:0"),
        timing=Timing(timing_device, timing_threads, warmup_runs, timed_runs),
        threads=threads,
    )
