"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from netopt_cli.errors import StorageError

_REASONS = {
    errno.ENOSPC: "no space is left. Make room",
    errno.EDQUOT: "the disk quota is used up. Make room",
    errno.EACCES: "not allowed. Make it writable",
    errno.EPERM: "not allowed. Make it writable",
    errno.EROFS: "the file system is read-only. Make it writable",
}


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turns a full or read-only disk into a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0)
        if reason is None:
            raise
        raise StorageError(f"Cannot write {path}: {reason}, or choose another place.") from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path beside `path` (same suffix), then renames it to `path`.

    A reader, and a run that was killed, sees the old content or the new one, never a part.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    with storage(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=f"~{path.suffix}")
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_folder_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a new directory beside `path`, then renames it to `path`, which must not
    exist.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    with storage(path):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=".", suffix="~"))
        try:
            write(temporary)
            temporary.chmod(0o755)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Writes JSON in lines: paths as text, tuples as lists, NaN and infinities as null."""
    write_text(path, json.dumps(_plain(content), indent=2, allow_nan=False))


def link_atomically(link: Path, target: str) -> None:
    """Makes `link` a symbolic link to `target`, replacing an older link at once."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    with storage(link):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)
