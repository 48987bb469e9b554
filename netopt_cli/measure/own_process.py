"""Measuring in a process of its own, which has loaded little and whose memory is the file's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from netopt_cli.errors import RunError

TIMEOUT_S = 600.0


def run(module: str, arguments: list[str], what: str) -> str:
    """Runs a module of netopt as a program and returns what it prints.

    Args:
        what: What is timed, for messages.

    Raises:
        RunError: It failed, or took more than `TIMEOUT_S`.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            cwd=Path(__file__).parents[2],
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(f"Timing {what} took more than {TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"Timing {what} failed (exit {done.returncode}): {last_line}")
    return done.stdout
