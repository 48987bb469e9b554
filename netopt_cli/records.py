"""Reading what runs have left, fast: `netopt runs`, `compare` and `check` stand on it.

A record is decoded no further than it is asked for. `record.json` is written with an indentation of
two, so that a key of its top level begins a line after two spaces, and nothing else can (a line
break inside a text is escaped); a record that somebody wrote in another shape is decoded whole.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from netopt_cli.errors import RecordError, did_you_mean
from netopt_cli.run_dir import LOG, RECORD, is_held

Row = dict[str, Any]
T = TypeVar("T")

_LEVELS = 3  # DIR/sweep/cell, and one for who sorts runs into folders
_DECODER = json.JSONDecoder()
_KEY = re.compile(r'\n  "([^"\\]+)": ')


class StoredRun:
    """A run directory as it lies on the disk: one run, or a parent of several seeds."""

    def __init__(self, folder: Path) -> None:
        """Reads the record.

        Raises:
            RecordError: There is none, it is no JSON, or it ends in the middle.
        """
        self.folder = folder
        try:
            self._text = (folder / RECORD).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise RecordError(f"{folder} holds no record of a run: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RecordError(f"{folder / RECORD} is no text") from error
        if not (self._text.startswith("{") and self._text.endswith("}")):
            raise RecordError(f"{folder / RECORD} ends in the middle, or is no JSON object")
        self._known: dict[str, Any] = {}
        self._places: dict[str, int] = {}
        if self._text.startswith('{\n  "'):
            self._places = {found[1]: found.end() for found in _KEY.finditer(self._text)}
        else:
            self._known = self._decoded(self._text, 0)

    def get(self, key: str, kind: type[T]) -> T | None:
        """The value of a key of the record's top level; None where there is none.

        Raises:
            RecordError: It is no JSON, or not of that kind.
        """
        if key in self._places:
            self._known[key] = self._decoded(self._text, self._places.pop(key))
        value = self._known.get(key)
        if value is not None and not isinstance(value, kind):
            raise RecordError(
                f"{self.folder / RECORD}: '{key}' must be a {kind.__name__}. "
                f"Received: {value!r:.80}"
            )
        return value

    def _decoded(self, text: str, start: int) -> Any:
        try:
            return _DECODER.raw_decode(text, start)[0]
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{self.folder / RECORD} is no JSON: {error}") from error

    @property
    def is_seeds(self) -> bool:
        """Whether this is the parent of runs that differ in their seed."""
        return self.get("kind", str) == "seeds"

    @property
    def status(self) -> str:
        """What became of it; `interrupted` too where the process was killed and wrote nothing."""
        written = self.get("status", str) or "unknown"
        return "interrupted" if written == "running" and not is_held(self.folder) else written

    @property
    def started(self) -> datetime | None:
        text = self.get("started", str)
        try:
            return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
        except ValueError as error:
            raise RecordError(f"{self.folder / RECORD}: 'started' is no time: {text!r}") from error

    @property
    def seeds(self) -> list[int]:
        found = self.get("seeds", list) if self.is_seeds else [self.get("seed", int)]
        return [seed for seed in found or () if isinstance(seed, int)]

    @property
    def rows(self) -> list[Row]:
        rows = self.get("rows", list) or []
        if not all(
            isinstance(row, dict) and isinstance(row.get(name), str)
            for row in rows
            for name in ("stage", "role")
        ):
            raise RecordError(f"{self.folder / RECORD}: 'rows' must have a stage and a role each")
        return rows

    @property
    def config(self) -> dict[str, Any]:
        return self.get("config", dict) or {}

    @property
    def dataset(self) -> dict[str, Any]:
        return self.get("dataset", dict) or {}

    @property
    def arch(self) -> str:
        return _component(self.config.get("arch"))

    @property
    def data(self) -> str:
        return str(self.dataset.get("name") or _component(self.config.get("data")))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the data before it was split: the same for every seed."""
        return str(self.dataset.get("fingerprint_sha256", ""))

    @property
    def stages(self) -> list[str]:
        return [str(name) for name in self.get("pipeline", list) or self.config.get("opt") or ()]

    def members(self) -> list[StoredRun]:
        """The runs of a parent of seeds that have a record; the run itself otherwise."""
        if not self.is_seeds:
            return [self]
        folders = (self.folder / str(name) for name in self.get("runs", list) or ())
        return [StoredRun(folder) for folder in folders if (folder / RECORD).is_file()]


def last_row(rows: list[Row]) -> Row | None:
    """The row of the last stage, or of the baseline when there is no stage; None of nothing."""
    return next((row for row in reversed(rows) if row["role"] in ("stage", "baseline")), None)


def find(folder: Path, levels: int = _LEVELS) -> Iterator[Path]:
    """Yields the run directories in and below `folder`, by name, none that is inside another.

    A directory that has only a log is one too: of a run that ended before its record began. Links,
    as `latest`, are not followed.
    """
    if (folder / RECORD).exists() or (folder / LOG).exists():
        yield folder
    elif levels:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:  # not ours to read
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from find(Path(entry.path), levels - 1)


def expand(words: Iterable[str]) -> list[Path]:
    """The run directories that words of a command line stand for, each once, in their order.

    A word is a run directory, a parent of seeds, a folder of runs as a sweep, or a glob of these.

    Raises:
        RecordError: For a word that leads to no run, with the nearest one.
    """
    found: dict[Path, Path] = {}
    for word in words:
        # Path.glob takes no absolute pattern.
        paths = [Path(each) for each in sorted(glob.glob(word))] or [Path(word)]  # noqa: PTH207
        folders = [folder for path in paths if path.is_dir() for folder in find(path)]
        if not folders:
            raise RecordError(f"'{word}' leads to no run.{_nearest(Path(word))}")
        for folder in folders:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _nearest(path: Path) -> str:
    beside = path.parent
    names = [str(beside / each.name) for each in beside.iterdir()] if beside.is_dir() else []
    hint = did_you_mean(str(path), names)
    return hint if "Did you mean" in hint else " `netopt runs` lists what there is."


def _component(node: Any) -> str:
    """How the command line calls what a `_target_` names: `cnn` for `netopt_cli.arch.cnn.build`."""
    target = node.get("_target_") if isinstance(node, dict) else None
    if not target:
        return ""
    *modules, name = str(target).split(".")
    return modules[-1] if modules and name in ("build", "load") else name
