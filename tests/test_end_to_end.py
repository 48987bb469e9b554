"""netopt as a user runs it: real processes, real trainings, real files."""

import importlib
import json
import logging
import signal
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from command_line import CommandLine, in_epoch_3

from netopt_cli.app import main

FAST = [
    "arch=mlp", "arch.hidden=[32]", "train.epochs=2", "data.train_limit=400",
    "target.warmup_runs=2", "target.timed_runs=30",
]  # fmt: skip


def record_of(folder: Path) -> dict:
    return json.loads((folder / "record.json").read_text())


def test_a_run_by_hand(netopt: CommandLine) -> None:
    done = netopt.alone(
        "train", "+arch=mlp", "+opt=distill", *FAST[1:], "opt.distill.teacher=mlp", "--json"
    )
    assert done.returncode == 0, done.stderr
    *_, report, last = done.stdout.splitlines()
    folder = netopt.folder / last
    assert json.loads(report)["run_dir"] == last
    assert json.loads(report)["status"] == "completed"
    assert [row["stage"] for row in json.loads(report)["rows"]] == ["baseline", "distill"]
    assert (netopt.folder / "runs" / "latest").resolve() == folder
    assert record_of(folder)["command"][:3] == ["netopt", "train", "+arch=mlp"]
    assert "baseline  epoch 1/2  loss" in done.stderr
    for chatter in ("WARNING", "cuda", "oneDNN", "TfLite", "Traceback", "I0000"):
        assert chatter not in done.stderr + done.stdout


@pytest.mark.slow
def test_a_sweep_leaves_a_complete_run_for_each_cell(netopt: CommandLine) -> None:
    done = netopt(
        "train", "-m", "arch=mlp,lenet5", "opt=none,[prune,quantize]", *FAST[2:], "--quiet",
        "opt.prune.epochs=1",
    )  # fmt: skip
    assert done.returncode == 2 and "opt.prune" in done.stderr, "not every cell has this stage"
    done = netopt(
        "train", "-m", "arch=mlp,lenet5", "opt=none,[prune,quantize]", *FAST[2:], "--quiet",
        "train.epochs=1", "control=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sweep = netopt.folder / done.stdout.splitlines()[-1]
    cells = sorted(path for path in sweep.iterdir() if path.is_dir())
    assert [cell.name for cell in cells] == [
        "0-mlp-none-seed0", "1-mlp-prune+quantize-seed0", "2-lenet5-none-seed0",
        "3-lenet5-prune+quantize-seed0",
    ]  # fmt: skip
    for cell in cells:
        assert record_of(cell)["status"] == "completed"
        table = pd.read_csv(cell / "metrics.csv")
        assert len(table) == (1 if "none" in cell.name else 3)
        assert (cell / "0-baseline" / "model.tflite").exists()
    assert (netopt.folder / "runs" / "latest").resolve() == cells[-1]


TIMINGS = ["latency_ms_median", "latency_ms_p90", "peak_memory_bytes", "train_seconds"]


@pytest.mark.slow
def test_a_seed_among_others_is_the_run_of_that_seed_alone(netopt: CommandLine) -> None:
    words = [
        "train", *FAST, "arch.dropout=0.3", "opt=[prune,quantize]", "opt.prune.epochs=1",
        "control=false", "--quiet",
    ]  # fmt: skip
    done = netopt(*words, "seeds=[3,1]", "--json")
    assert done.returncode == 0, done.stderr
    report, last = done.stdout.splitlines()
    parent = netopt.folder / last
    assert (netopt.folder / "runs" / "latest").resolve() == parent
    done = netopt(*words, "seed=1")
    assert done.returncode == 0, done.stderr
    alone = netopt.folder / done.stdout.splitlines()[-1]
    together = parent / "seed-1"
    assert digests(together) == digests(alone)
    tables = [pd.read_csv(f / "metrics.csv").drop(columns=TIMINGS) for f in (together, alone)]
    pd.testing.assert_frame_equal(*tables)
    files = [
        {path.relative_to(f).as_posix() for path in f.rglob("*") if "tensorboard" not in path.parts}
        for f in (together, alone)
    ]
    assert files[0] == files[1]
    assert record_of(together)["config"] == record_of(alone)["config"]
    rows = json.loads(report)["rows"]
    assert rows[0]["accuracy"]["values"][1] == record_of(alone)["rows"][0]["accuracy"]
    assert len({*rows[0]["accuracy"]["values"]}) > 1, "the seeds differ"


LISTENING = """
import signal, sys
# A shell in the background would hand on that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from netopt_cli.app import main
sys.exit(main())
"""


def test_a_control_c_keeps_the_record(netopt: CommandLine) -> None:
    training = ("-c", LISTENING, "train", *FAST, "train.epochs=100000")
    with in_epoch_3(*training, folder=netopt.folder) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err and "netopt resume runs/" in err and "Traceback" not in err
    folder = netopt.folder / out.splitlines()[-1]
    assert record_of(folder)["status"] == "interrupted"
    assert (folder / "0-baseline" / "last_good.keras").exists()
    assert len(pd.read_csv(folder / "history.csv")) >= 3


@pytest.mark.parametrize(
    ("stage", "tolerance"),
    # Each replica sees its part of the batch, and moves the ranges of activations by that.
    [
        pytest.param(("opt=prune", "opt.prune.epochs=1"), 1e-3, id="prune", marks=pytest.mark.slow),
        pytest.param(("opt=qat", "opt.qat.epochs=1"), 1e-2, id="qat", marks=pytest.mark.slow),
    ],
)
def test_mirrored_replicas_compute_what_one_device_does(
    netopt: CommandLine, stage: tuple[str, ...], tolerance: float
) -> None:
    words = ["train", *FAST, *stage, "train.clip_norm=1.0", "--json"]
    losses = []
    for target in (["target=cpu"], ["target=mirrored", "target.device=cpu", "target.replicas=2"]):
        done = netopt.alone(*words, *target)
        assert done.returncode == 0, done.stderr
        losses.append([row["loss"] for row in json.loads(done.stdout.splitlines()[-2])["rows"]])
    assert losses[0] == pytest.approx(losses[1], abs=tolerance)


def launched(netopt: CommandLine, *words: str) -> tuple[Path, Path]:
    """Starts two workers and returns the directories of both."""
    done = netopt.alone("launch", "--workers", "2", "train", "target=multi_worker", *words)
    assert done.returncode == 0, done.stderr
    chief = netopt.folder / done.stdout.splitlines()[-1]
    return chief, chief / "workers" / "1"


def digests(folder: Path) -> list[str]:
    return [stage["weights_sha256"] for stage in record_of(folder)["stages"].values()]


def test_two_workers_agree_with_one_process(netopt: CommandLine) -> None:
    chief, worker = launched(netopt, *FAST, "opt=prune", "opt.prune.epochs=1")
    assert digests(chief) == digests(worker)
    assert len(digests(chief)) == 3
    done = netopt("train", *FAST, "opt=prune", "opt.prune.epochs=1", "target=cpu")
    single = netopt.folder / done.stdout.splitlines()[-1]
    columns = ["stage", "epoch", "loss", "val_loss"]
    alone, together = (pd.read_csv(f / "history.csv")[columns] for f in (single, chief))
    pd.testing.assert_frame_equal(alone, together, check_exact=False, atol=1e-3, rtol=0)
    assert not (worker / "metrics.csv").exists(), "the chief alone measures"


@pytest.mark.slow
def test_two_workers_save_the_same_statistics(netopt: CommandLine) -> None:
    chief, worker = launched(netopt, *FAST, "arch.normalization=batch")
    models = [
        keras.saving.load_model(f / "0-baseline" / "model.keras", compile=False)
        for f in (chief, worker)
    ]
    statistics = [
        [v.numpy() for v in model.non_trainable_variables if "moving" in v.path] for model in models
    ]
    assert len(statistics[0]) == 2
    for a, b in zip(*statistics, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.allclose(a, 0) and not np.allclose(a, 1)


@pytest.mark.slow
def test_a_worker_that_fails_ends_the_others(netopt: CommandLine) -> None:
    words = ["train", *FAST, "data=npz", "data.path=none.npz"]
    done = netopt.alone("launch", "--workers", "2", *words)
    assert done.returncode == 2
    assert "none.npz" in done.stderr and "Traceback" not in done.stderr


OWN_ARCH = """
import keras

def build(shape: tuple[int, ...], classes: int, *, units: int = 8) -> keras.Model:
    inputs = keras.Input(shape)
    x = keras.layers.Dense(units, activation="relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(classes)(x), name="own_net")
"""
OWN_OPT = '''
from dataclasses import dataclass
from typing import Annotated
import tensorflow as tf
from pydantic import Field
from netopt_cli.contracts import Context, Modifier, Network

@dataclass(frozen=True)
class Noise:
    """Trains on with noise on the inputs."""
    deviation: Annotated[float, Field(ge=0)] = 0.1

    def __call__(self, network: Network, context: Context) -> Network:
        def add(x, y, seed):
            return x + self.deviation * tf.random.stateless_normal(tf.shape(x), seed), y
        context.note(f"noise of {self.deviation}")
        return context.fit(network, epochs=1, modifiers=[Modifier("noise", transform_batch=add)])
'''
OWN_DATA = """
import numpy as np
from netopt_cli.assembly import assemble
from netopt_cli.dataset import Dataset

def load(seed: int, *, samples: int = 300) -> Dataset:
    x = np.random.default_rng(0).normal(size=(samples, 12)).astype(np.float32)
    return assemble("own", train=(x, (x.sum(1) > 0).astype(np.int32)), seed=seed)
"""


def test_a_users_own_arch_opt_and_data(netopt: CommandLine) -> None:
    package = netopt.folder / "mynets"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for group, module, text, target in (
        ("arch", "own_net", OWN_ARCH, "build"),
        ("opt", "noise", OWN_OPT, "Noise"),
        ("data", "sums", OWN_DATA, "load"),
    ):
        (package / f"{module}.py").write_text(text)
        folder = netopt.folder / "conf" / group
        folder.mkdir(parents=True)
        head = "# @package opt.noise\n" if group == "opt" else ""
        node = f"# A component of the user's own package.\n_target_: mynets.{module}.{target}\n"
        node += "deviation: 0.1\n" if group == "opt" else ""
        (folder / f"{module}.yaml").write_text(head + node)
    words = ["arch=own_net", "opt=[noise,quantize]", "data=sums", "train.epochs=2", "--json"]
    own = ["--config-dir", "conf"]
    done = netopt("train", *own, "--allow", "mynets", *words, "opt.noise.deviation=0.2")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-2])["rows"]
    assert [(row["stage"], row["role"]) for row in rows] == [
        ("baseline", "baseline"), ("noise", "control"), ("noise", "stage"), ("quantize", "stage"),
    ]  # fmt: skip
    assert "noise of 0.2" in done.stderr
    refused = netopt("train", *own, *words)
    assert refused.returncode == 2 and "mynets" in refused.stderr and "--allow" in refused.stderr
    wrong = netopt("train", *own, "--allow", "mynets", *words, "opt.noise.deviation=-1")
    assert wrong.returncode == 2 and "opt.noise.deviation" in wrong.stderr


OWN_LAYER = """
import keras

@keras.saving.register_keras_serializable("mine")
class Shift(keras.layers.Layer):
    def call(self, x):
        return x + keras.ops.roll(x, 1, axis=-1)
"""


@pytest.mark.slow
def test_a_users_own_model_from_a_file(
    netopt: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (netopt.folder / "mylayers.py").write_text(OWN_LAYER)
    monkeypatch.syspath_prepend(netopt.folder)
    shift = importlib.import_module("mylayers").Shift(name="shift")
    inputs = keras.Input((8, 8, 1))
    x = shift(keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs))
    outputs = keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(x))
    keras.Sequential([keras.Model(inputs, outputs)]).save(netopt.folder / "mine.keras")
    words = ["train", "arch=keras_model", "arch.path=mine.keras", *FAST[2:]]
    # In processes of their own, which do not know the layer from this test.
    refused = netopt.alone(*words)
    assert refused.returncode == 2 and "'mine>Shift'" in refused.stderr, refused.stderr
    done = netopt.alone(*words, "--allow", "mylayers", "opt=[prune,quantize]")
    assert done.returncode == 0, done.stderr
    assert "quantize" in done.stdout


BAD = [
    (["arch=cnnn"], "cnn"),
    (["data=digit"], "digits"),
    (["opt=prun"], "prune"),
    (["train.epoch=3"], "train.epochs"),
    (["train.epochs=many"], "train.epochs"),
    (["train.epochs=-1"], "train.epochs"),
    (["opt=prune", "opt.prune.sparsity=1.2"], "sparsity=1.2"),
    (["opt=prune", "opt.prune.sparsty=0.5"], "sparsity"),
    (["data=npz"], "data.path"),
    (["data=npz", "data.path=missing.npz"], "missing.npz"),
    (["data=npz", "data.path=unlabelled.npz"], "y_train"),
    (["data=npz", "data.path=nan.npz"], "NaN"),
    (["data=npz", "data.path=pickled.npz"], "pickle"),
    (["data=npz", "data.path=short.npz"], "5"),
    (["data=npz", "data.path=labels.npz", "data.class_names=[a,b]"], "label"),
    (["data=npz", "data.path=text.npz"], "text.npz"),
    (["arch=vgg", "arch.widths=[8,8,8,8]", "arch.repeats=[1,1,1,1]"], "arch.widths"),
    (["arch=keras_model", "arch.path=none.keras"], "none.keras"),
    (["opt=distill", "opt.distill.teacher=foo.keras"], "foo.keras"),
    (["opt=distill", "opt.distill.teacher=seven.keras"], "7 outputs"),
    (["opt=[prune,distill]", "opt.distill.start=scratch"], "opt.distill.start"),
    (["opt=prune", "opt.prune.exclude=['*']"], "opt.prune.exclude"),
    (["target=gpu"], "target=gpu"),
    (["target=mirrored"], "target=mirrored"),
    (["target=multi_worker"], "TF_CONFIG"),
    (["train.batch_size=-3"], "train.batch_size"),
    (["seed=x"], "seed"),
]


@pytest.fixture(scope="module")
def broken_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("broken")
    x, y = np.zeros((20, 4), np.float32), np.arange(20) % 2
    good = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    np.savez(tmp_path / "unlabelled.npz", x_train=x, x_test=x, y_test=y)
    np.savez(tmp_path / "nan.npz", **good | {"x_train": np.full_like(x, np.nan)})
    pickled = np.array([{"a": 1}] * 20, dtype=object)
    np.savez(tmp_path / "pickled.npz", **good | {"x_train": pickled})
    np.savez(tmp_path / "short.npz", **good | {"y_train": y[:5]})
    np.savez(tmp_path / "labels.npz", **good | {"y_train": y + 5})
    (tmp_path / "text.npz").write_text("not an archive")
    inputs = keras.Input((8, 8, 1))
    keras.Model(inputs, keras.layers.Dense(7)(keras.layers.Flatten()(inputs))).save(
        tmp_path / "seven.keras"
    )
    return tmp_path


@pytest.mark.parametrize(("words", "named"), BAD, ids=lambda value: str(value)[:60])
def test_bad_input_is_one_clear_message(
    words: list[str],
    named: str,
    broken_files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if words == ["target=gpu"] and tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    monkeypatch.chdir(broken_files)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    # Handlers of libraries hold the streams of earlier tests, which pytest has closed.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    before = set(broken_files.iterdir())
    assert main(["train", *words]) == 2
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line]
    assert 1 <= len(lines) <= 2 and lines[0].startswith("error: "), err
    assert named in err
    assert "Traceback" not in err and not out
    runs = broken_files / "runs"
    assert not any(runs.glob("*")), "nothing is left half-written"
    assert set(broken_files.iterdir()) - {runs} == before - {runs}
