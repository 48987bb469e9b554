"""The terminal: where netopt speaks, and where the chatter of native libraries goes instead.

TensorFlow and the converters write to the descriptors 1 and 2 from C++ and Python. While a run is
under way both lead into its log; netopt's own words go to the real streams through `consoles()`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple, TextIO

from rich.console import Console

_PIPE_WIDTH = 200  # columns: a pipe has no width, and a table must not be wrapped in it


class Consoles(NamedTuple):
    """Attributes:
    out: The real stdout: results.
    err: The real stderr: progress and messages.
    """

    out: Console
    err: Console


_speaking: list[Consoles] = []


def consoles() -> Consoles:
    """The consoles on the real stdout and stderr, also inside `native_output_to`."""
    return _speaking[-1] if _speaking else _on(sys.stdout, sys.stderr)


@contextmanager
def native_output_to(path: Path) -> Iterator[None]:
    """Adds everything that is written to the descriptors 1 and 2 to the file `path`.

    Raises:
        OSError: When the file cannot be opened.
    """
    with ExitStack() as stack:
        log = stack.enter_context(path.open("ab", buffering=0))
        out = stack.enter_context(_detoured(1, sys.stdout, log))
        err = stack.enter_context(_detoured(2, sys.stderr, log))
        _speaking.append(_on(out, err))
        stack.callback(_speaking.pop)
        yield


def quiet_tensorflow() -> None:
    """Says to TensorFlow, before it is imported, to log errors alone, and to Keras its backend."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"


@contextmanager
def _detoured(descriptor: int, stream: TextIO, log: IO[bytes]) -> Iterator[TextIO]:
    """Leads a descriptor into `log` and yields a stream on what it led to before."""
    stream.flush()
    encoding = stream.encoding or "utf-8"
    with os.fdopen(
        os.dup(descriptor), "w", buffering=1, encoding=encoding, errors="replace"
    ) as real:
        os.dup2(log.fileno(), descriptor)
        try:
            yield real
        finally:
            stream.flush()
            real.flush()
            os.dup2(real.fileno(), descriptor)


def _on(out: TextIO, err: TextIO) -> Consoles:
    piped = not out.isatty() and "COLUMNS" not in os.environ
    return Consoles(
        Console(file=out, width=_PIPE_WIDTH if piped else None, highlight=False),
        Console(file=err, highlight=False),
    )
