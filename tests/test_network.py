"""netopt asks the network for nothing, unless the data are to be downloaded."""

import json
from pathlib import Path

import pytest
from command_line import CommandLine

CUT = '''\
"""Imported by Python when it starts: cuts the network, and notes who reached for it."""

import os
import socket
import sys
import traceback

_REACH = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
          "socket.gethostbyname", "socket.gethostbyaddr"}


def _cut(event, args):
    if event in _REACH and getattr(args[0], "family", None) != socket.AF_UNIX:
        with open(os.environ["REACHED"], "a") as log:
            log.write(f"{event} {args[1:]}\\n{''.join(traceback.format_stack()[-6:-1])}\\n")
        raise OSError(101, "the network is cut")


sys.addaudithook(_cut)
'''


class CutOff:
    """Runs netopt, and whatever processes it starts, without a network."""

    def __init__(self, folder: Path) -> None:
        (folder / "cut").mkdir()
        (folder / "cut" / "sitecustomize.py").write_text(CUT)
        self._log = folder / "reached.txt"
        self._netopt = CommandLine(folder)
        # A folder of its own: what somebody has downloaded before does not count.
        self._env = {
            "PYTHONPATH": str(folder / "cut"), "REACHED": str(self._log),
            "KERAS_HOME": str(folder / "keras"),
        }  # fmt: skip

    def __call__(self, *words: str, code: int = 0) -> str:
        """Runs a command line, and returns what it said."""
        done = self._netopt.alone(*words, env=self._env)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    @property
    def reached(self) -> str:
        """Who tried to reach the network."""
        return self._log.read_text() if self._log.exists() else ""


@pytest.fixture
def cut_off(tmp_path: Path) -> CutOff:
    return CutOff(tmp_path)


@pytest.mark.slow
def test_nothing_is_asked_of_the_network(cut_off: CutOff, tmp_path: Path) -> None:
    small = ("arch=mlp", "arch.hidden=[8]", "data.train_limit=200", "train.epochs=1")
    quick = ("target.timed_runs=5", "target.warmup_runs=1", "hydra.run.dir=runs/a")
    cut_off("train", "-q", *small, "opt=[prune,quantize]", "opt.prune.epochs=1", *quick)
    for line in (
        "runs",
        "compare runs/a runs/a",
        "check runs/a --baseline baseline.json --update",
        "check runs/a --baseline baseline.json",
        "report runs/a",
        "report runs/a --format png",
        "list",
        "doctor",
    ):
        cut_off(*line.split())
        assert not cut_off.reached, line
    assert json.loads((tmp_path / "runs/a/record.json").read_text())["status"] == "completed"


def test_data_that_are_to_be_downloaded_are_asked_for(cut_off: CutOff) -> None:
    said = cut_off("train", "-q", "arch=mlp", "data=mnist", code=2)
    assert "the network is cut" in said and "data.path" in said
    assert "socket.getaddrinfo" in cut_off.reached, "what is cut is noticed"
