"""What a run reads or writes goes away under it: one sentence, and what is done goes on."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from netopt_cli.app import main
from netopt_cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_WRONG_INPUT
from netopt_cli.record import Record

Act = Callable[[], object]
Capture = pytest.CaptureFixture[str]
ONE_STAGE = (
    "train", "-q", "opt=regularize", "opt.regularize.epochs=1", "train.epochs=1", "control=false",
    "train.batch_size=20", "target.timed_runs=5", "target.warmup_runs=1", "hydra.run.dir=run",
)  # fmt: skip
MLP = ("arch=mlp", "arch.hidden=[8]")
NPZ = ("data=npz", "data.path=data.npz")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def once_there_is_a_baseline(monkeypatch: pytest.MonkeyPatch) -> Callable[[Act], None]:
    """Lets something happen as soon as the row of the baseline is written, the first time."""

    def arrange(act: Act) -> None:
        written, acts = Record.add_row, [act]

        def add_row(record: Record, row: dict) -> None:
            written(record, row)
            if acts:
                acts.pop()()

        monkeypatch.setattr(Record, "add_row", add_row)

    return arrange


def write_npz(*, changed: bool = False) -> None:
    draw = np.random.default_rng(0)
    arrays = {
        "x_train": draw.integers(0, 256, (60, 6, 6, 1), np.uint8),
        "y_train": np.arange(60) % 3,
        "x_test": draw.integers(0, 256, (30, 6, 6, 1), np.uint8),
        "y_test": np.arange(30) % 3,
    }
    if changed:
        arrays["x_train"][0, 0, 0, 0] ^= 1
    np.savez("data.npz", **arrays)


def write_images() -> list[Path]:
    """Small images of two classes, split; returns those of the training split."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 4), ("test", 4)):
        for name in ("a", "b"):
            folder = Path("photos", split, name)
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (6, 6, 3), np.uint8)
                keras.utils.save_img(folder / f"{number}.png", pixels, scale=False)
    return sorted(Path("photos/train").rglob("*.png"))


def interrupt() -> None:
    raise KeyboardInterrupt


def stages() -> list[str]:
    """The stages with a row, and no word of an unfinished one in the tables."""
    record = json.loads(Path("run/record.json").read_text())
    lines = Path("run/metrics.csv").read_text().splitlines()
    assert len(lines) == 1 + len(record["rows"])
    return [row["stage"] for row in record["rows"]]


def assert_stopped(capfd: Capture, said: str, *, goes_on: bool = True) -> None:
    """One sentence, the way to go on where there is one, and the baseline is intact."""
    err = capfd.readouterr().err
    lines = [line for line in err.splitlines() if line]
    assert lines[0].startswith("error: ") and said in lines[0], err
    assert len(lines) == 1 + goes_on and "internal error" not in err
    assert ("Go on with: netopt resume run" in err) == goes_on
    assert stages() == ["baseline"]


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder in which nobody can write, not even root."""
    folder.mkdir(parents=True)
    if os.geteuid():
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("root can write anywhere, and cannot mount here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_directory_that_is_read_only(capfd: Capture) -> None:
    write_npz()
    with read_only(Path("run/1-regularize")):
        assert main([*ONE_STAGE, *MLP, *NPZ]) == EXIT_FAILED
        assert_stopped(capfd, "Make it writable, or choose another place")
    Path("run").rename("kept")
    with read_only(Path("run")):
        for words in (ONE_STAGE, ("report", "kept", "--output", "run/report.html")):
            assert main([*words, *(MLP if words is ONE_STAGE else ())]) == EXIT_FAILED
            assert "annot write" in capfd.readouterr().err
    Path("run").rmdir()
    Path("kept").rename("run")
    assert main(["resume", "-q", "run"]) == EXIT_OK
    assert stages() == ["baseline", "regularize"]


@pytest.mark.parametrize("how", ["gone", pytest.param("truncated", marks=pytest.mark.slow)])
def test_an_image_that_is_lost_while_it_is_in_use(
    how: str, once_there_is_a_baseline: Callable[[Act], None], capfd: Capture
) -> None:
    lost = write_images()[5]
    content = lost.read_bytes()
    act, said = {
        "gone": (lost.unlink, f"{lost} is gone"),
        "truncated": (lambda: lost.write_bytes(content[:30]), f"{lost}: "),
    }[how]
    once_there_is_a_baseline(act)
    words = (*MLP, "data=image_folder", "data.path=photos", "data.image_size=[6,6]")
    assert main([*ONE_STAGE, *words]) == EXIT_FAILED
    assert_stopped(capfd, said)
    assert main(["resume", "-q", "run"]) == EXIT_WRONG_INPUT, "still lost"
    assert "the data are not those that the run in" in capfd.readouterr().err
    lost.write_bytes(content)
    assert main(["resume", "-q", "run"]) == EXIT_OK
    assert stages() == ["baseline", "regularize"]


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_data(
    once_there_is_a_baseline: Callable[[Act], None], capfd: Capture
) -> None:
    write_npz()
    once_there_is_a_baseline(interrupt)
    assert main([*ONE_STAGE, *MLP, *NPZ]) == EXIT_INTERRUPTED
    before = Path("run/record.json").read_bytes()
    content = Path("data.npz").read_bytes()
    for spoil, said in [
        (lambda: Path("data.npz").write_bytes(content[: len(content) // 2]), "data.npz"),
        (lambda: write_npz(changed=True), "the data are not those that the run in"),
    ]:
        spoil()
        capfd.readouterr()
        assert main(["resume", "-q", "run"]) == EXIT_WRONG_INPUT
        err = capfd.readouterr().err
        assert err.startswith("error: ") and said in err
        assert Path("run/record.json").read_bytes() == before
    write_npz()
    assert main(["resume", "-q", "run"]) == EXIT_OK
    assert stages() == ["baseline", "regularize"]


@pytest.mark.slow
def test_seeds_are_of_the_same_data(
    once_there_is_a_baseline: Callable[[Act], None], capfd: Capture
) -> None:
    write_npz()
    once_there_is_a_baseline(lambda: write_npz(changed=True))
    words = [word for word in ONE_STAGE if "regularize" not in word]
    assert main([*words, *MLP, *NPZ, "seeds=2"]) == EXIT_FAILED
    assert "error in seed-1: the data are not those of the seeds" in capfd.readouterr().err
    record = json.loads(Path("run/record.json").read_text())
    assert list(record["failed"]) == ["seed-1"] and record["rows"][0]["accuracy"]["n"] == 1
    write_npz()
    first = Path("run/seed-0/record.json").read_bytes()
    assert main(["resume", "-q", "run"]) == EXIT_OK
    record = json.loads(Path("run/record.json").read_text())
    assert not record["failed"] and record["rows"][0]["accuracy"]["n"] == 2
    assert Path("run/seed-0/record.json").read_bytes() == first


def test_a_network_that_is_lost_while_it_is_in_use(
    once_there_is_a_baseline: Callable[[Act], None], capfd: Capture
) -> None:
    write_npz()
    inputs = keras.Input((6, 6, 1))
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
    mine = Path("mine.keras")
    keras.Model(inputs, outputs).save(mine)
    once_there_is_a_baseline(lambda: mine.rename("away.keras"))
    assert main([*ONE_STAGE, "arch=keras_model", f"arch.path={mine}", *NPZ]) == EXIT_FAILED
    assert_stopped(capfd, "arch.path does not exist")
    Path("away.keras").rename(mine)
    assert main(["resume", "-q", "run"]) == EXIT_OK
    assert stages() == ["baseline", "regularize"]


def test_a_loss_that_is_no_number(capfd: Capture) -> None:
    write_npz()
    words = (*MLP, *NPZ, "opt.regularize.learning_rate=1e30", "train.optimizer=sgd")
    assert main([*ONE_STAGE, *words, "opt.regularize.epochs=3"]) == EXIT_FAILED
    assert_stopped(capfd, "Try a lower opt.regularize.learning_rate", goes_on=False)
