"""Directories of runs: made atomically, so that no two runs share one."""

import fcntl
import itertools
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from netopt_cli.errors import ConfigError, DataError, StorageError
from netopt_cli.files import link_atomically

LOG = "run.log"
RECORD = "record.json"
CONFIG = "config.yaml"
LATEST = "latest"
CHECKPOINTS = "checkpoints"
SEEDS = "seeds"
"""The kind of a record of several seeds; that of one run has no kind."""

_A_MOMENT = 0.05  # seconds
_BEFORE_THE_START = {LOG, CONFIG}
_WRITTEN_INTO = re.compile(r"\d+-|seed-|checkpoint|teachers$|tensorboard$|wandb$|workers$")
"""Names of the folders in the directory of a run."""


def reserve_run_dir(base: Path, name: str) -> Path:
    """Makes and returns `base/name`, or `-2`, `-3`, … when somebody was there before.

    Raises:
        StorageError: When it cannot be made (read-only, full, or a file is in the way).
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            path = base / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise _unwritable(base, error) from error
    raise AssertionError("unreachable: the numbers do not end")


def use_run_dir(path: Path) -> Path:
    """Makes a directory that the user named, if need be, and returns it.

    Raises:
        ConfigError: When it holds the record of a run, or a link that would lead a run out of it.
        StorageError: When nothing can be written there.
    """
    refuse_finished(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        refuse_links_out(path)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def refuse_finished(path: Path) -> None:
    """Raises ConfigError when `path` holds the record of a run that cannot go on."""
    if has_record(path) and not can_go_on(path):
        raise ConfigError(f"{path} already holds the record of a run: choose another directory")


def has_record(path: Path) -> bool:
    return (path / RECORD).exists()


def can_go_on(path: Path) -> bool:
    """Whether the directory holds a run, or several seeds of one, begun and not complete."""
    facts = _facts(path)
    is_run = facts.get("kind", SEEDS) == SEEDS
    return is_run and facts.get("status") in ("running", "failed", "interrupted")


def is_complete(path: Path) -> bool:
    """Whether the directory holds a run that came to its end."""
    return _facts(path).get("status") == "completed"


def _facts(path: Path) -> dict[str, Any]:
    """The record in a directory; empty when there is none that can be read."""
    try:
        found = json.loads((path / RECORD).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_of(path: Path, config_yaml: str) -> bool:
    """Whether the directory holds a run of this config, complete or not."""
    config = path / CONFIG
    return has_record(path) and config.exists() and config.read_text() == config_yaml


def refuse_another_config(path: Path, config_yaml: str) -> None:
    """Raises ConfigError when a run of another config has begun in `path`."""
    if not is_of(path, config_yaml):
        raise ConfigError(
            f"{path} holds a run of another config that is not complete: go on with it by "
            f"`netopt resume {path}`, or choose another directory"
        )


def refuse_other_data(path: Path, fingerprint: str) -> None:
    """Raises DataError when there are rows in `path` that were measured on other data."""
    facts = _facts(path)
    if facts.get("rows") and facts.get("dataset", {}).get("fingerprint_sha256") != fingerprint:
        raise DataError(
            f"the data are not those that the run in {path} began with: put these back to go on "
            "with it, or choose another directory"
        )


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keeps a run directory for this process, however it ends.

    Raises:
        ConfigError: Another process works in it.
    """
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(directory, path)
        yield
    finally:
        os.close(directory)


def is_held(path: Path) -> bool:
    """Whether a process works in a run directory; also where the file system cannot tell."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return True
    try:
        fcntl.flock(directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(directory)
    return False


def _lock(directory: int, path: Path) -> None:
    for is_last in (False, False, True):
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if is_last:
                raise ConfigError(
                    f"another process works in {path}: wait for it, or choose another directory"
                ) from error
            time.sleep(_A_MOMENT)  # it may be `is_held`, which looks and goes
        else:
            return


def refuse_links_out(path: Path) -> None:
    """Refuses a directory in which what a run writes would be written somewhere else.

    The directory itself may be a link, which is the user's own; what is in it may be a stranger's.

    Raises:
        ConfigError: Naming the link.
    """
    home = path.resolve()
    for entry in path.iterdir():
        inside = entry.rglob("*") if _WRITTEN_INTO.match(entry.name) else ()
        for each in (entry, *inside):
            if each.is_symlink() and not each.resolve().is_relative_to(home):
                raise ConfigError(
                    f"{path} has a link that leads out of it, {each.relative_to(path)}: a run "
                    "would write there; choose another directory"
                )


def recorded_rows(path: Path) -> list[dict[str, Any]]:
    """The rows that the record of a run has so far; none when it has not begun."""
    return _recorded(path, "rows")


def recorded_exports(path: Path) -> list[dict[str, Any]]:
    """The rows of the exported files in the record of a run, where it has further formats."""
    return _recorded(path, "exports")


def recorded_exits(path: Path) -> list[dict[str, Any]]:
    """The ways through the networks with early exits in the record of a run."""
    return _recorded(path, "exits")


def recorded_robustness(path: Path) -> list[dict[str, Any]]:
    """The rows of the robustness of the networks in the record of a run."""
    return _recorded(path, "robustness")


def recorded_responses(path: Path) -> list[dict[str, Any]]:
    """The rows of `netopt sensitivity` in the record of a run."""
    return _recorded(path, "responses")


def recorded_seeds(path: Path) -> dict[str, Any]:
    """The record of several seeds; empty for the directory of one run."""
    record = path / RECORD
    found: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}
    return found if found.get("kind") == SEEDS else {}


def _recorded(path: Path, key: str) -> list[dict[str, Any]]:
    record = path / RECORD
    return json.loads(record.read_text()).get(key, []) if record.exists() else []


def point_latest(link: Path, directory: Path) -> None:
    """Makes `link` lead to a run; the newest one wins."""
    link_atomically(link, os.path.relpath(directory, link.parent))


def discard_unstarted(path: Path) -> bool:
    """Removes the directory of a run that was refused before it began, and says whether it did.

    Anything but the log and the config is a result, and is left alone.
    """
    if any(entry.name not in _BEFORE_THE_START for entry in path.iterdir()):
        return False
    for entry in path.iterdir():
        entry.unlink()
    path.rmdir()
    return True


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write to {path}: {error.strerror}")
