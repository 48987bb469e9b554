"""A bound on the time that something takes which a stranger's input decides on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from netopt_cli.errors import InputError


class _TimeIsUpError(BaseException):
    """Not an Exception, which what is interrupted might catch."""


@contextmanager
def time_limit(seconds: float, message: str) -> Iterator[None]:
    """Ends what takes more than `seconds` of processor time, which no busy machine makes longer.

    Without timers of the process (Windows), and outside its main thread, there is no limit.

    Raises:
        InputError: `message`.
    """
    has_timer = hasattr(signal, "setitimer")
    if not has_timer or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signal_number: int, frame: FrameType | None) -> None:
        raise _TimeIsUpError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    except _TimeIsUpError:
        raise InputError(message) from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
