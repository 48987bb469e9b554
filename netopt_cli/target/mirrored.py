"""Several devices of one machine that share every batch."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

from netopt_cli.contracts import Target, Timing
from netopt_cli.errors import TargetError
from netopt_cli.hardware import Count, TimingDevice, gpus, prepare_host, split_cpu


def build(
    *,
    device: Literal["gpu", "cpu"] = "gpu",
    replicas: Count | None = None,
    threads: Count | None = None,
    timing_device: TimingDevice = "cpu",
    timing_threads: Count = 1,
    warmup_runs: Count = 50,
    timed_runs: Count = 500,
) -> Target:
    """Returns a `tf.distribute.MirroredStrategy`.

    Args:
        device: `gpu`, or `cpu`: the one CPU cut into logical devices, for trying things out.
        replicas: How many devices; None is every GPU (2 parts of the CPU).
        threads: Threads of the host; None is all cores.
        timing_device, timing_threads, warmup_runs, timed_runs: See `contracts.Timing`.

    Raises:
        TargetError: There are not as many GPUs, or only one.
    """
    if device == "gpu":
        found = len(gpus())
        wanted = replicas or found
        if found < 2 or wanted > found:
            raise TargetError(
                f"target=mirrored needs {max(2, wanted)} GPUs: TensorFlow sees {found}. To try it "
                "on the CPU: target.device=cpu target.replicas=2."
            )
        devices = [f"GPU:{index}" for index in range(wanted)]
    prepare_host(threads)
    if device == "cpu":
        devices = split_cpu(replicas or 2)
    return Target(
        name="mirrored",
        strategy=tf.distribute.MirroredStrategy(devices),
        timing=Timing(timing_device, timing_threads, warmup_runs, timed_runs),
        threads=threads,
    )
