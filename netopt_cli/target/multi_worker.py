"""Several processes, on one machine or many, that share every batch."""

from __future__ import annotations

import json
import os
from functools import cache

import tensorflow as tf

from netopt_cli.contracts import Target, Timing
from netopt_cli.errors import TargetError
from netopt_cli.hardware import Count, TimingDevice, prepare_host
from netopt_cli.lost_workers import noticing_lost_workers


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
        TargetError: TF_CONFIG is missing or does not describe this worker, or its port is taken.
        LostWorkerError: Another worker has ended before all of them met.
    """
    worker, addresses = _read_cluster(os.environ.get("TF_CONFIG", ""))
    workers = len(addresses)
    prepare_host(threads)
    with noticing_lost_workers(workers):
        try:
            strategy = _strategy()
        except tf.errors.UnknownError as error:  # what gRPC says of its server
            raise TargetError(
                f"Worker {worker} cannot listen on {addresses[worker]}: is the port taken, or the "
                f"address another machine's? ({error.message})"
            ) from error
    return Target(
        name="multi_worker",
        strategy=strategy,
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


def _read_cluster(text: str) -> tuple[int, list[str]]:
    """Returns (this worker's index, the addresses of all workers)."""
    advice = "To start all workers on this machine: netopt launch --workers 2 train ..."
    if not text:
        raise TargetError(f"target=multi_worker needs the variable TF_CONFIG. {advice}")
    try:
        config = json.loads(text)
        addresses = list(config["cluster"]["worker"])
        task, worker = config["task"]["type"], int(config["task"]["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise TargetError(
            'TF_CONFIG must be like {"cluster": {"worker": ["host:port", …]}, "task": {"type": '
            f'"worker", "index": 0}}}}. Received: {text[:200]}'
        ) from error
    if task != "worker" or not 0 <= worker < len(addresses):
        raise TargetError(
            f"TF_CONFIG names task {task} {worker}, which is not one of its {len(addresses)} "
            "workers."
        )
    return worker, addresses
