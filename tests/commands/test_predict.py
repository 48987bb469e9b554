"""`netopt predict`, on images and arrays; on texts in tests/data/test_texts.py."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from command_line import CommandLine

TINY = [
    "arch=mlp", "arch.hidden=[16]", "opt=quantize", "target.warmup_runs=1", "target.timed_runs=30",
    "control=false", "--quiet",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits, and one of a regression."""
    found = tmp_path_factory.mktemp("predict")
    netopt = CommandLine(found)
    assert (
        netopt(
            "train", *TINY, "train.epochs=30", "train.learning_rate=0.01", "hydra.run.dir=digits"
        ).returncode
        == 0
    )
    x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    y = 1000 + 50 * x[:, 0] - 20 * x[:, 1]
    np.savez(found / "own.npz", x_train=x[:250], y_train=y[:250], x_test=x[250:], y_test=y[250:])
    ran = netopt("train", *TINY, "train.epochs=60", "data=npz", "data.path=own.npz",
                 "task=regression", "train.learning_rate=0.01",
                 "hydra.run.dir=numbers")  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return found


def test_images_and_arrays_of_a_classification(folder: Path) -> None:
    from sklearn.datasets import load_digits

    netopt, digits = CommandLine(folder), load_digits()
    bytes_ = np.round(digits.images[:4] * 255 / 16).astype(np.uint8)
    np.save(folder / "four.npy", bytes_)
    image = tf.io.encode_png(bytes_[2][..., None]).numpy()
    (folder / "two.png").write_bytes(image)
    ran = netopt("predict", "digits", "--json", "-i", "four.npy", "-i", "two.png")
    said = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [each["class"] for each in said] == ["0", "1", "2", "3", "2"], ran.stderr
    assert said[1]["input"] == "four.npy[1]" and len(said[1]["probabilities"]) == 10
    assert said[2]["probabilities"] == said[4]["probabilities"]


def test_a_regression_answers_in_the_units_of_its_labels(folder: Path) -> None:
    netopt = CommandLine(folder)
    np.save(folder / "one.npy", np.array([1.0, -1.0, 0.0]))
    ran = netopt("predict", "numbers", "--json", "-i", "one.npy")
    assert json.loads(ran.stdout)["value 1"] == pytest.approx(1070, abs=20), ran.stderr


def test_the_folder_of_a_stage_is_all_that_is_needed(folder: Path, tmp_path: Path) -> None:
    for name in ("model.tflite", "predict.json"):
        shutil.copy(folder / "numbers/1-quantize" / name, tmp_path)
    np.save(tmp_path / "one.npy", np.array([[1.0, -1.0, 0.0]]))
    ran = CommandLine(tmp_path).alone("predict", ".", "-i", "one.npy")
    assert (ran.returncode, ran.stdout.startswith("value 1: 10")) == (0, True), ran.stderr
    assert not ran.stderr, "nothing of the runtime's own chatter"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits"], "predict needs a sample: --input VALUE"),
        (["digits", "-i", "gone.npy"], "Cannot read gone.npy as a NumPy file"),
        (["digits", "-i", "gone.png"], "No such file: gone.png"),
        (["digits", "-i", "own.npz"], "own.npz must have an array 'x'"),
        (["numbers", "-i", "four.npy"], "four.npy must hold samples of shape (3,)"),
        (["digits", "--stage", "quantise", "-i", "x"], "Did you mean 'quantize'"),
        (["nowhere", "-i", "x"], "RUN must be the directory of a run"),
        ([".", "-i", "x"], "has no stage with a model.tflite"),
    ],
)
def test_what_cannot_be_answered_is_said(folder: Path, words: list[str], message: str) -> None:
    np.save(folder / "four.npy", np.zeros((4, 8, 8), np.uint8))
    ran = CommandLine(folder)("predict", *words)
    assert (ran.returncode, message in ran.stderr) == (2, True), ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_bundle_of_a_stranger_names_no_code(folder: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(folder / "digits/1-quantize", bundle)
    values = json.loads((bundle / "predict.json").read_text())
    for task, message in (
        ({"_target_": "os.system", "command": "touch broken"}, "os.system"),
        ({}, "task._target_ must be given"),
    ):
        (bundle / "predict.json").write_text(json.dumps(values | {"task": task}))
        ran = CommandLine(tmp_path)("predict", "bundle", "-i", "x.npy")
        assert (ran.returncode, message in ran.stderr) == (2, True), ran.stderr
    (bundle / "predict.json").write_text('{"reader": {"kind": "os"}')
    ran = CommandLine(tmp_path)("predict", "bundle", "-i", "x.npy")
    assert (ran.returncode, "is damaged" in ran.stderr) == (2, True)
    assert not (tmp_path / "broken").exists()
