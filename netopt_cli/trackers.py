"""Who is told of a run: TensorBoard, and those of `tracking`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from netopt_cli.contracts import TrackedRun, Tracker
from netopt_cli.errors import NetoptError, TrackingError
from netopt_cli.observer import Epoch

_LONGEST_REASON = 300


class Trackers:
    """All trackers of a run, as one.

    One that cannot begin refuses the run. One that fails later is told nothing more, and the run
    goes on: no service takes a training along.

    Attributes:
        facts: By tracker: `id`, under which it finds the run again, and `failed`, why it is told
            nothing more.
    """

    def __init__(self, trackers: Mapping[str, Tracker], say: Callable[[str], object]) -> None:
        self.facts: dict[str, dict[str, str]] = {}
        self._trackers = dict(trackers)
        self._say = say

    def begin(self, run: TrackedRun, before: Any) -> None:
        """Begins, or goes on.

        Args:
            before: The `facts` of a process that was interrupted, as they were read.

        Raises:
            TrackingError: A tracker cannot begin.
        """
        for number, (name, tracker) in enumerate(self._trackers.items()):
            known = _known(before, name)
            try:
                found = tracker.begin(run, known)
            except Exception as error:
                self._trackers = dict(list(self._trackers.items())[:number])
                self.end("failed", (), ())
                if isinstance(error, NetoptError):
                    raise
                raise TrackingError(f"tracking={name} cannot begin: {_reason(error)}") from error
            if found is not None:
                self.facts[name] = {"id": found}
            if known not in (None, found):
                self._say(
                    f"warning: {name} does not have the run {known} any more: a new one begins"
                )

    def epoch(self, epoch: Epoch) -> None:
        self._tell(lambda tracker: tracker.epoch(epoch))

    def row(self, row: Mapping[str, Any]) -> None:
        self._tell(lambda tracker: tracker.row(row))

    def end(self, status: str, files: Sequence[Path], models: Sequence[Path]) -> None:
        self._tell(lambda tracker: tracker.end(status, files, models))

    def _tell(self, tell: Callable[[Tracker], object]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                tell(tracker)
            except Exception as error:  # whatever a service may raise
                del self._trackers[name]
                reason = _reason(error)
                self.facts.setdefault(name, {})["failed"] = reason
                self._say(f"warning: {name} is told nothing more of this run: {reason}")


def _known(before: Any, name: str) -> str | None:
    """The id in a record, which may be a stranger's."""
    facts = before.get(name) if isinstance(before, dict) else None
    known = facts.get("id") if isinstance(facts, dict) else None
    return known if isinstance(known, str) else None


def _reason(error: Exception) -> str:
    """The first line of a message, without the password of an address in it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"(?<=://)[^/@\s]*@", "", lines[0])[:_LONGEST_REASON]
