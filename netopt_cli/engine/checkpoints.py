"""Trainings that can be taken up again, and that another run can take over.

A training is named after all that decides on its result: the network and every variable that its
compiled step reads, as they are when it begins, the settings, the data, the seed, what modifies it,
the code. What a run finds under that name is the same training, of the run itself before it was
killed, or of an earlier one. A name that is not found means that the training is another one, and
it begins at its beginning: nothing wrong can be taken up.

A checkpoint is a zip of arrays (NumPy, without pickles) with a checksum of each, written whole or
not at all; one that cannot be read is as good as none, and the one before it counts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from netopt_cli.archives import check_zip
from netopt_cli.errors import InputError, StorageError
from netopt_cli.files import storage, write_atomically

_log = logging.getLogger(__name__)

_SUFFIX = ".training"
"""Of the files: zip archives of arrays, as `.npz`, but nothing of the user's is called so."""
_KEPT = 2
"""Checkpoints of a training that goes on: the newest, and the one before it."""


@dataclass
class Snapshot:
    """A training at a moment between two compiled calls, or at its end.

    Attributes:
        variables: What the compiled step reads and writes, in the order of its captures.
        best: The weights to end with, so far.
        state: The rest, as JSON.
        is_finished: Whether the training is over.
    """

    variables: list[np.ndarray]
    best: list[np.ndarray]
    state: dict[str, Any]
    is_finished: bool


class Cache:
    """Finished trainings that runs share, in a folder of bounded size."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Args: max_bytes: What was used longest ago goes when the folder is larger."""
        self._folder = folder
        self._max_bytes = max_bytes

    def find(self, name: str) -> Snapshot | None:
        path = self._path(name)
        found = _read(path)
        if found is not None and os.access(path, os.W_OK):
            path.touch()  # used last, so forgotten last
        return found

    def add(self, name: str, snapshot: Snapshot) -> None:
        """Keeps a training for others, if there is room: the run itself does without."""
        path = self._path(name)
        try:
            with storage(path):
                self._folder.mkdir(parents=True, exist_ok=True)
                _write(path, snapshot)
                self._forget()
        except StorageError as error:
            _log.warning("no other run can take this training over: %s", error)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"

    def _forget(self) -> None:
        """Removes files, the longest unused first, until the rest is small enough."""
        files = []
        for path in self._folder.glob(f"*{_SUFFIX}"):
            try:
                files.append((path.stat().st_mtime, path.stat().st_size, path))
            except FileNotFoundError:
                continue  # another run has just removed it
        left = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if left <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            left -= size


@dataclass
class Checkpoints:
    """The trainings of one run.

    Attributes:
        folder: Where they are kept until the run is complete.
        every_seconds: How often a training is kept while it goes on.
        cache: Finished trainings of all runs; None keeps to those of this run.
    """

    folder: Path
    every_seconds: float
    cache: Cache | None = None
    _names: list[str] = field(default_factory=list)

    def of(self, name: str) -> TrainingFiles:
        """The files of the training of that name; the second one of a name in a run is another."""
        self._names.append(name)
        return TrainingFiles(self, f"{name}-{self._names.count(name)}", name)


class TrainingFiles:
    """The checkpoints of one training."""

    def __init__(self, checkpoints: Checkpoints, file: str, name: str) -> None:
        self._folder = checkpoints.folder
        self._every_seconds = checkpoints.every_seconds
        self._cache = checkpoints.cache
        self._file = file
        self._name = name
        self._saved_at = time.monotonic()

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= self._every_seconds

    def find(self) -> tuple[Snapshot, bool] | None:
        """The newest snapshot that can be read, and whether another run has left it."""
        for path in reversed(self._paths()):
            found = _read(path)
            if found is not None:
                return found, False
        cached = self._cache.find(self._name) if self._cache is not None else None
        return None if cached is None else (cached, True)

    def save(self, snapshot: Snapshot) -> None:
        """Keeps a snapshot, and of the older ones the last.

        Raises:
            StorageError: The disk is full or cannot be written.
        """
        older = self._paths()
        number = int(older[-1].stem.rpartition(".")[2]) + 1 if older else 1
        path = self._folder / f"{self._file}.{number:06d}{_SUFFIX}"
        with storage(path):
            self._folder.mkdir(parents=True, exist_ok=True)
        _write(path, snapshot)
        for old in older if snapshot.is_finished else older[: 1 - _KEPT]:
            old.unlink(missing_ok=True)
        if snapshot.is_finished and self._cache is not None:
            self._cache.add(self._name, snapshot)
        self._saved_at = time.monotonic()

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._file}.*{_SUFFIX}"))


def name_of(facts: Any, arrays: Iterator[np.ndarray] | Sequence[np.ndarray]) -> str:
    """32 hex digits of the SHA-256 of facts, which `repr` tells apart, and arrays."""
    digest = hashlib.sha256(repr(facts).encode())
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


def _write(path: Path, snapshot: Snapshot) -> None:
    arrays = {f"variable/{i}": array for i, array in enumerate(snapshot.variables)}
    arrays |= {f"best/{i}": array for i, array in enumerate(snapshot.best)}
    state = {"is_finished": snapshot.is_finished, "state": snapshot.state}
    arrays["state"] = np.frombuffer(json.dumps(state).encode(), np.uint8)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    write_atomically(path, write)


def _read(path: Path) -> Snapshot | None:
    """A snapshot, or None where there is none that is whole; reading verifies the checksums."""
    if not path.exists():
        return None
    try:
        check_zip(path)  # the directory of a run may be a stranger's
        with np.load(path, allow_pickle=False) as arrays:
            kept = json.loads(arrays["state"].tobytes())
            parts: dict[str, list[np.ndarray]] = {"variable": [], "best": []}
            for part, values in parts.items():
                while f"{part}/{len(values)}" in arrays:
                    values.append(arrays[f"{part}/{len(values)}"])
    except (InputError, OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        _log.warning("%s cannot be read (%s): the one before it counts", path, error)
        return None
    return Snapshot(parts["variable"], parts["best"], kept["state"], kept["is_finished"])
