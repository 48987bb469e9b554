"""`netopt launch`: start the workers of `target=multi_worker` on this machine, on loopback."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from netopt_cli.arguments import Parser
from netopt_cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, ConfigError

HELP = "Start several workers of target=multi_worker on this machine."

_DETAILS = """\
  netopt launch --workers 2 train arch=mlp data=fashion_mnist target=multi_worker

Worker 0, the chief, runs in front and measures; the others write to workers/<n>/ in its run
directory, with what they print in workers/<n>/launch.log. Over several machines, start
`netopt train target=multi_worker` on each with its own TF_CONFIG instead.
Exit code: that of the worker that failed.
"""
_LOG = "launch.log"
_PORTS = range(20_000, 32_768)
"""Below those of connections: from 32,768 on Linux, from 49,152 elsewhere."""
_ERRORS = ("error", "internal error")
"""How `failures.report` begins a line."""
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
    """Ports that nobody listens on. The workers do only when TensorFlow is loaded, seconds later:
    those that systems give to connections by themselves could be taken by then."""
    shuffled = random.SystemRandom().sample(_PORTS, len(_PORTS))
    return list(islice(filter(_is_free, shuffled), count))


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


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
        while True:
            codes = [process.poll() for process in processes]
            failed = [index for index, code in enumerate(codes) if code]
            if failed:
                return _give_up(processes, failed, directory)
            if None not in codes:
                return EXIT_OK
            time.sleep(0.1)
    except KeyboardInterrupt:
        _end(processes, signal.SIGINT)
        return EXIT_INTERRUPTED


def _give_up(processes: list[subprocess.Popen[bytes]], failed: list[int], directory: Path) -> int:
    codes = [processes[index].returncode for index in failed]
    _end(processes, signal.SIGTERM)
    for index, code in zip(failed, codes, strict=True):
        if code < 0:
            print(f"error: worker {index} was ended by signal {-code}", file=sys.stderr)
        elif index:  # what the chief says stands here already
            log = directory / "workers" / str(index) / _LOG
            print(f"error: worker {index} failed: {_last_error(log)} (see {log})", file=sys.stderr)
    return max(EXIT_FAILED, *codes)


def _last_error(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith(_ERRORS)]
    return (errors or lines or ["it said nothing"])[-1]


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
