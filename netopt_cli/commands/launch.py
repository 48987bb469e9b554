"""`netopt launch`: start the workers of `target=multi_worker` on this machine, on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from netopt_cli.arguments import Parser
from netopt_cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, ConfigError

HELP = "Start several workers of target=multi_worker on this machine."

_DETAILS = """\
  netopt launch --workers 2 train arch=mlp data=fashion_mnist target=multi_worker

Worker 0, the chief, runs in front and measures; the others write to workers/<n>/ in its run
directory, with what they print in workers/<n>/launch.log. Over several machines, start
`netopt train target=multi_worker` on each with its own TF_CONFIG instead.
Exit codes: those of the worker that failed first.
"""
_LOG = "launch.log"
_GRACE_SECONDS = 10


def parser() -> Parser:
    found = Parser("launch", HELP, _DETAILS)
    found.add_argument("--workers", type=int, default=2, metavar="N", help="how many (2)")
    found.add_argument("command", nargs="...", metavar="train ...", help="what each worker runs")
    return found


def main(argv: Sequence[str]) -> int:
    arguments = parser().read(argv)
    if arguments.workers < 1:
        raise ConfigError(f"--workers must be at least 1. Received: {arguments.workers}")
    if not arguments.command or arguments.command[0] != "train":
        raise ConfigError(
            "launch runs `netopt train ...`: netopt launch --workers 2 train target=multi_worker. "
            f"Received: {' '.join(arguments.command) or 'nothing'}"
        )
    words = arguments.command
    if "target=multi_worker" not in [word.lstrip("+") for word in words]:
        words = [*words, "target=multi_worker"]
    from netopt_cli import jobs, run_dir
    from netopt_cli.commands import train

    directory = train.reserve(words[1:]).absolute()
    if run_dir.has_record(directory):
        raise ConfigError(
            f"{directory} holds a run that is not complete, and several workers do not go on: "
            "choose another directory"
        )
    latest = jobs.latest_link("hydra.run.dir", words, directory)
    words = [word for word in words if not word.lstrip("+").startswith("hydra.run.dir=")]
    ports = _free_ports(arguments.workers)
    with ExitStack() as stack:
        processes = [
            _start(words, index, ports, directory, stack) for index in range(arguments.workers)
        ]
        code = _wait(processes, directory)
    if latest is not None and (directory / run_dir.RECORD).exists():
        run_dir.point_latest(latest, directory)
    return code


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _start(
    words: list[str], index: int, ports: list[int], directory: Path, stack: ExitStack
) -> subprocess.Popen[bytes]:
    cluster = {
        "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
        "task": {"type": "worker", "index": index},
    }
    own = directory if index == 0 else directory / "workers" / str(index)
    log = None
    if index:
        own.mkdir(parents=True)
        log = stack.enter_context((own / _LOG).open("wb"))
    return subprocess.Popen(
        [sys.executable, "-m", "netopt_cli.app", *words, f"hydra.run.dir='{own}'"],
        env=os.environ | {"TF_CONFIG": json.dumps(cluster)},
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
    )


def _wait(processes: list[subprocess.Popen[bytes]], directory: Path) -> int:
    """Waits for all; the first that fails ends the others, which would wait for it for ever."""
    try:
        while any(process.poll() is None for process in processes):
            failed = [i for i, process in enumerate(processes) if process.returncode]
            if failed:
                return _give_up(processes, failed[0], directory)
            time.sleep(0.1)
    except KeyboardInterrupt:
        _end(processes, signal.SIGINT)
        return EXIT_INTERRUPTED
    failed = [i for i, process in enumerate(processes) if process.returncode]
    return _give_up(processes, failed[0], directory) if failed else EXIT_OK


def _give_up(processes: list[subprocess.Popen[bytes]], failed: int, directory: Path) -> int:
    _end(processes, signal.SIGTERM)
    code = processes[failed].returncode
    if failed:
        log = directory / "workers" / str(failed) / _LOG
        lines = log.read_text(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else "it said nothing"
        print(f"error: worker {failed} failed: {reason} (see {log})", file=sys.stderr)
    return code if code > 0 else EXIT_FAILED


def _end(processes: list[subprocess.Popen[bytes]], signal_number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal_number)
    deadline = time.monotonic() + _GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
