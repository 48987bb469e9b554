"""One GPU."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from netopt_cli.contracts import Target, Timing
from netopt_cli.errors import TargetError
from netopt_cli.hardware import Count, TimingDevice, gpus, one_device, prepare_host


def build(
    *,
    index: Annotated[int, Field(ge=0)] = 0,
    threads: Count | None = None,
    timing_device: TimingDevice = "cpu",
    timing_threads: Count = 1,
    warmup_runs: Count = 50,
    timed_runs: Count = 500,
) -> Target:
    """Returns a GPU to train on. The exported file is timed on the CPU.

    Args:
        index: Which GPU.
        threads: Threads of the host; None is all cores.
        timing_device, timing_threads, warmup_runs, timed_runs: See `contracts.Timing`.

    Raises:
        TargetError: There is no such GPU.
    """
    found = len(gpus())
    if index >= found:
        raise TargetError(
            f"target=gpu target.index={index} is not there: TensorFlow sees {found} GPUs. "
            "Use target=cpu, or look at `netopt doctor`."
        )
    prepare_host(threads)
    return Target(
        name="gpu",
        strategy=one_device(f"/gpu:{index}"),
        timing=Timing(timing_device, timing_threads, warmup_runs, timed_runs),
        threads=threads,
    )
