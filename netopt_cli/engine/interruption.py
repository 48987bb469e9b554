"""Ctrl-C while steps are under way: they are finished and kept before the run stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Interruption:
    """Attributes:
    is_asked: Whether the user wants the run to stop.
    """

    is_asked: bool = False


@contextmanager
def finishing_steps() -> Iterator[Interruption]:
    """Lets the first Ctrl-C ask, and a second one interrupt at once as usual.

    Python calls handlers in the main thread alone; elsewhere nobody asks.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    usual = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        interruption.is_asked = True
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, ask)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, usual)
    if interruption.is_asked:
        raise KeyboardInterrupt
