"""Several workers, one of which is lost."""

import os
import signal
import socket
from pathlib import Path

import pytest
import tensorflow as tf
from command_line import CommandLine, in_epoch_3

from netopt_cli.commands import launch
from netopt_cli.errors import LostWorkerError
from netopt_cli.lost_workers import noticing_lost_workers

HEARTBEAT = "heartbeat timeout [type.googleapis.com/tensorflow.CoordinationServiceError='']"


def raised(error: tf.errors.OpError, workers: int) -> type[Exception]:
    with (
        pytest.raises((tf.errors.OpError, LostWorkerError)) as info,
        noticing_lost_workers(workers),
    ):
        raise error
    return info.type


@pytest.mark.parametrize(
    ("kind", "text", "is_lost"),
    [
        (tf.errors.UnavailableError, "failed to connect to all addresses", True),
        (tf.errors.DeadlineExceededError, "Collective ops is aborted", True),
        (tf.errors.InternalError, HEARTBEAT, True),
        (tf.errors.InternalError, "something else", False),
        (tf.errors.ResourceExhaustedError, "out of memory", False),
    ],
)
def test_the_errors_of_the_transport_are_a_lost_worker(
    kind: type[tf.errors.OpError], text: str, *, is_lost: bool
) -> None:
    assert raised(kind(None, None, text), 2) is (LostWorkerError if is_lost else kind)
    assert raised(kind(None, None, text), 1) is kind


def test_a_worker_that_cannot_begin_ends_the_others(
    netopt: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        free = launch._free_ports(1)
        monkeypatch.setattr(launch, "_free_ports", lambda count: [*free, taken])
        done = netopt("launch", "--workers", "2", "train", "arch=mlp")
    assert done.returncode == 2, done.stderr
    assert f"worker 1 failed: error: Worker 1 cannot listen on 127.0.0.1:{taken}" in done.stderr


def children(process: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc here")
def test_a_worker_that_stops_ends_the_run_with_a_message(netopt: CommandLine) -> None:
    words = ("arch=mlp", "arch.hidden=[8]", "data.train_limit=200", "train.epochs=100000")
    training = ("-m", "netopt_cli.app", "launch", "--workers", "2", "train", *words)
    with in_epoch_3(*training, folder=netopt.folder) as process:
        os.kill(children(process.pid)[1], signal.SIGSTOP)
        _, said = process.communicate(timeout=200)
    assert process.returncode == 1
    lines = [line for line in said.splitlines() if " epoch " not in line]
    assert lines[0].startswith("error: one of the 2 workers cannot be reached any more"), said
    assert "netopt resume" not in said and "internal error" not in said
