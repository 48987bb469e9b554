"""The one place where an exception becomes a message on stderr and an exit code."""

import errno
import os
import sys
import tempfile
import traceback
from pathlib import Path

from netopt_cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_WRONG_INPUT, NetoptError

_LONGEST_MESSAGE = 1_500
"""Characters: a list of choices fits into it."""
_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def report(error: BaseException, *, log: Path | None = None, where: str = "") -> int:
    """Prints what went wrong and returns the exit code of the process.

    Args:
        log: File that the traceback of an internal error is added to; without it, a new file in
            the directory for temporary files.
        where: Names the cell of a sweep.
    """
    place = f" in {where}" if where else ""
    if isinstance(error, NetoptError):
        print(printable(f"error{place}: {error}"), file=sys.stderr)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        print(f"interrupted{place}", file=sys.stderr)
        return EXIT_INTERRUPTED
    if isinstance(error, OSError) and error.errno in _STORAGE:
        print(
            f"error{place}: cannot write {error.filename or 'the results'}: {error.strerror}",
            file=sys.stderr,
        )
        return EXIT_FAILED
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        print(
            printable(f"error{place}: a path has a name that is too long: {error.filename}"),
            file=sys.stderr,
        )
        return EXIT_WRONG_INPUT
    _report_internal(error, log, place)
    return EXIT_FAILED


def printable(text: str) -> str:
    """Text for a terminal: cut where nobody reads on, and without the characters that steer one or
    turn the direction of writing, for messages quote what a stranger's file says."""
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE]} …"
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def _report_internal(error: BaseException, log: Path | None, place: str) -> None:
    trace = "".join(traceback.format_exception(error))
    summary = printable(traceback.format_exception_only(error)[-1].strip().splitlines()[0])
    if os.environ.get("NETOPT_TRACEBACK") == "1":
        print(f"{trace}internal error{place}: {summary}", file=sys.stderr)
        return
    try:
        kept = _keep(trace, log)
    except OSError:
        print(f"{trace}internal error{place}: {summary}", file=sys.stderr)
        return
    print(
        f"internal error{place}: {summary}\nThe traceback is in {kept}; "
        "NETOPT_TRACEBACK=1 shows it here.",
        file=sys.stderr,
    )


def _keep(trace: str, log: Path | None) -> Path:
    if log is None:
        descriptor, name = tempfile.mkstemp(prefix="netopt-traceback-", suffix=".txt", text=True)
        os.close(descriptor)
        log = Path(name)
    with log.open("a", encoding="utf-8") as file:
        file.write(trace)
    return log
