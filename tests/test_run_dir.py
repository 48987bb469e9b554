"""Run directories: unique, and refused in words when they cannot be."""

import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from netopt_cli.errors import EXIT_FAILED, ConfigError, StorageError
from netopt_cli.run_dir import discard_unstarted, held, is_held, reserve_run_dir, use_run_dir


def test_names_that_are_taken_get_a_number(tmp_path: Path) -> None:
    names = [reserve_run_dir(tmp_path / "runs", "now-cnn").name for _ in range(3)]
    assert names == ["now-cnn", "now-cnn-2", "now-cnn-3"]


def test_runs_of_the_same_second_never_share(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: reserve_run_dir(tmp_path, "now"), range(40)))
    assert len(set(made)) == 40
    assert all(path.is_dir() for path in made)


def test_a_file_in_the_way_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    for make in (lambda: reserve_run_dir(tmp_path / "runs", "x"),
                 lambda: use_run_dir(tmp_path / "runs" / "x")):  # fmt: skip
        with pytest.raises(StorageError, match=r"cannot write to .*runs") as caught:
            make()
        assert caught.value.exit_code == EXIT_FAILED


def test_a_full_or_read_only_file_system_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdir(self: Path, *_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(StorageError, match=r"cannot write to .*: Read-only file system"):
        reserve_run_dir(tmp_path, "x")


def test_a_directory_of_the_user_is_used_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "a" / "b"
    assert use_run_dir(own) == own
    (own / "notes.txt").touch()
    assert use_run_dir(own) == own
    assert [path.name for path in own.iterdir()] == ["notes.txt"]


def test_a_directory_with_a_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "record.json").touch()
    with pytest.raises(ConfigError, match="already holds the record of a run"):
        use_run_dir(tmp_path)


def test_only_a_run_that_did_not_begin_is_discarded(tmp_path: Path) -> None:
    for name, files, gone in [
        ("refused", ["run.log", "config.yaml"], True),
        ("empty", [], True),
        ("begun", ["run.log", "record.json"], False),
    ]:
        folder = tmp_path / name
        folder.mkdir()
        for file in files:
            (folder / file).touch()
        assert discard_unstarted(folder) is gone
        assert folder.exists() is not gone
        if not gone:
            assert sorted(path.name for path in folder.iterdir()) == sorted(files)


def test_a_directory_is_held_as_long_as_a_process_works_in_it(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with held(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(ConfigError, match="another process works in"), held(tmp_path):
            pass
    assert not is_held(tmp_path)


def test_who_looks_whether_a_run_goes_on_does_not_keep_it_from_going_on(tmp_path: Path) -> None:
    looking = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.02, os.close, [looking]).start()
    with held(tmp_path):
        assert is_held(tmp_path)
