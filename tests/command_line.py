"""Calling netopt as a user does."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import TextIO
from unittest import mock

from netopt_cli.app import main


class CommandLine:
    """Runs netopt in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str) -> CompletedProcess[str]:
        """Runs a command line in this process, where TensorFlow is at hand."""
        with _file() as out, _file() as err:
            with (
                contextlib.chdir(self.folder),
                mock.patch.object(sys, "path", [*sys.path]),
                _led_to(out, "stdout", 1),
                _led_to(err, "stderr", 2),
            ):
                code = main(words)
            return CompletedProcess(words, code, *(_content(file) for file in (out, err)))

    def alone(self, *words: str, env: dict[str, str] | None = None) -> CompletedProcess[str]:
        """Runs a command line in a process of its own, which takes seconds to import TensorFlow.

        One that does not end fails the test. All that it has started is ended with it: whoever
        waits for its last words would wait for theirs too.
        """
        process = subprocess.Popen(
            [sys.executable, "-m", "netopt_cli.app", *words],
            cwd=self.folder,
            env=os.environ | (env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"{words} did not end: {out}\n{err}") from None
        return CompletedProcess(words, process.returncode, out, err)


@contextlib.contextmanager
def in_epoch_3(*python: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Starts Python in a folder with a program that trains, and waits for its third epoch. What is
    left of it in the end, and of what it has started, is ended."""
    process = subprocess.Popen(
        [sys.executable, *python],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "epoch 3/" in line:
                break
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _file() -> TextIO:
    return tempfile.TemporaryFile("w+", encoding="utf-8")


@contextlib.contextmanager
def _led_to(file: TextIO, name: str, descriptor: int) -> Iterator[None]:
    """Leads a standard stream into a file, together with its descriptor, to which libraries
    write."""
    before = os.dup(descriptor)
    os.dup2(file.fileno(), descriptor)
    try:
        with mock.patch.object(sys, name, file):
            yield
        file.flush()
    finally:
        os.dup2(before, descriptor)
        os.close(before)


def _content(file: TextIO) -> str:
    file.seek(0)
    return file.read()
