"""Several processes, on one machine or many, that share every batch."""

from __future__ import annotations

import json
import os
from functools import cache

import tensorflow as tf

from netopt_cli.contracts import Target, Timing
from netopt_cli.errors import TargetError
from netopt_cli.hardware import Count, TimingDevice, prepare_host


def build(
    *,
    threads: Count | None = None,
    timing_device: TimingDevice = "cpu",
    timing_threads: Count = 1,
    warmup_runs: Count = 50,
    timed_runs: Count = 500,
) -> Target:
    """Returns a `tf.distribute.MultiWorkerMirroredStrategy` described by TF_CONFIG.

    Worker 0 is the chief: it alone measures. Every worker keeps a run directory of its own.

    Args:
        threads: Threads of each worker; None is all cores.
        timing_device, timing_threads, warmup_runs, timed_runs: See `contracts.Timing`.

    Raises:
        TargetError: TF_CONFIG is missing or does not describe this worker.
    """
    worker, workers = _read_cluster(os.environ.get("TF_CONFIG", ""))
    prepare_host(threads)
    return Target(
        name="multi_worker",
        strategy=_strategy(),
        timing=Timing(timing_device, timing_threads, warmup_runs, timed_runs),
        threads=threads,
        worker=worker,
        workers=workers,
    )


@cache
def _strategy() -> tf.distribute.Strategy:
    """Collective communication is set up once a process."""
    return tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(
            implementation=tf.distribute.experimental.CommunicationImplementation.RING
        )
    )


def _read_cluster(text: str) -> tuple[int, int]:
    """Returns (this worker's index, number of workers)."""
    advice = "To start all workers on this machine: netopt launch --workers 2 train ..."
    if not text:
        raise TargetError(f"target=multi_worker needs the variable TF_CONFIG. {advice}")
    try:
        config = json.loads(text)
        workers = len(config["cluster"]["worker"])
        task, worker = config["task"]["type"], int(config["task"]["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise TargetError(
            'TF_CONFIG must be like {"cluster": {"worker": ["host:port", …]}, "task": {"type": '
            f'"worker", "index": 0}}}}. Received: {text[:200]}'
        ) from error
    if task != "worker" or not 0 <= worker < workers:
        raise TargetError(
            f"TF_CONFIG names task {task} {worker}, which is not one of its {workers} workers."
        )
    return worker, workers
