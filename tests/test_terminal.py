"""Where netopt speaks, and where native chatter goes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from netopt_cli.terminal import consoles, native_output_to


def test_chatter_goes_to_the_log_and_netopt_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "run.log"
    log.write_text("before\n")
    with native_output_to(log):
        os.write(1, b"native 1\n")
        os.write(2, b"native 2\n")
        subprocess.run([sys.executable, "-c", "print('child')"], check=True)
        consoles().out.print("a result")
        consoles().err.print("a message")
    os.write(2, b"after\n")
    captured = capfd.readouterr()
    assert captured.out == "a result\n"
    assert captured.err == "a message\nafter\n"
    assert log.read_text() == "before\nnative 1\nnative 2\nchild\n"


def test_the_streams_come_back_after_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyError), native_output_to(tmp_path / "run.log"):
        raise KeyError
    consoles().out.print("result")
    os.write(2, b"message\n")
    assert capfd.readouterr() == ("result\n", "message\n")


def test_a_log_that_cannot_be_opened_leaves_the_streams_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OSError, match="No such file"), native_output_to(tmp_path / "no" / "log"):
        pytest.fail("must not start")
    os.write(2, b"message\n")
    assert capfd.readouterr().err == "message\n"


def test_a_pipe_does_not_wrap_a_table(capfd: pytest.CaptureFixture[str]) -> None:
    consoles().out.print("x " * 80)
    assert capfd.readouterr().out.count("\n") == 1
