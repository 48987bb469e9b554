"""Whole runs in this process: rows, controls, and what the record keeps."""

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from netopt_cli import experiment
from netopt_cli.config import compose
from netopt_cli.errors import DivergedError, ParityError
from netopt_cli.tables import COLUMNS

FAST = [
    "arch=mlp", "arch.hidden=[64,32]", "train.epochs=2", "data.train_limit=600",
    "target.warmup_runs=2", "target.timed_runs=30",
]  # fmt: skip
TIMING = ["latency_ms_median", "latency_ms_p90", "peak_memory_bytes", "train_seconds"]


def run(folder: Path, *overrides: str) -> list[dict]:
    folder.mkdir(parents=True, exist_ok=True)
    return experiment.run(
        compose([*FAST, *overrides]),
        folder,
        allow=(),
        command=["netopt", "train", *overrides],
        messages=Console(quiet=True),
        quiet=True,
    ).rows


def names(rows: list[dict]) -> list[tuple[str, str, str | None]]:
    return [(row["stage"], row["role"], row["control"]) for row in rows]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("pruned")
    return folder, run(folder, "opt=[prune,quantize]", "opt.prune.epochs=2")


def test_rows_come_in_order_and_name_their_control(pruned: tuple[Path, list[dict]]) -> None:
    assert names(pruned[1]) == [
        ("baseline", "baseline", None),
        ("prune", "control", "baseline"),
        ("prune", "stage", "prune control"),
        ("quantize", "stage", "prune control"),
    ]


def test_the_savings_are_in_the_file(pruned: tuple[Path, list[dict]]) -> None:
    _, (baseline, control, prune, quantize) = pruned
    assert prune["sparsity"] == pytest.approx(0.8, abs=0.005)
    assert quantize["sparsity"] >= prune["sparsity"]
    assert control["sparsity"] < 0.01
    assert prune["size_bytes"] == pytest.approx(baseline["size_bytes"], rel=0.02)
    assert prune["size_gzip_bytes"] < 0.5 * baseline["size_gzip_bytes"]
    assert quantize["size_bytes"] < 0.45 * prune["size_bytes"]
    assert prune["nonzero_params"] < 0.25 * baseline["params"]
    assert prune["macs"] == baseline["macs"] == 64 * 64 + 64 * 32 + 32 * 10


def test_the_run_directory_is_complete(pruned: tuple[Path, list[dict]]) -> None:
    folder, rows = pruned
    for label in ("0-baseline", "1-prune-control", "1-prune", "2-quantize"):
        assert (folder / label / "model.keras").exists()
        assert (folder / label / "model.tflite").stat().st_size in {r["size_bytes"] for r in rows}
    table = pd.read_csv(folder / "metrics.csv")
    assert list(table.columns) == list(COLUMNS)
    assert table["accuracy"].tolist() == pytest.approx([r["accuracy"] for r in rows], rel=1e-5)
    history = pd.read_csv(folder / "history.csv")
    assert history.groupby("stage", sort=False).size().to_dict() == {
        "baseline": 2,
        "prune": 2,
        "prune control": 2,
    }
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "completed" and record["error"] is None
    assert record["seed"] == 0 and record["wall_seconds"] > 0
    assert record["command"][:2] == ["netopt", "train"]
    assert len(record["dataset"]["fingerprint_sha256"]) == 64
    assert {"tensorflow", "keras", "netopt"} <= set(record["environment"]["packages"])
    assert record["config"]["opt"]["prune"]["sparsity"] == 0.8
    details = record["stages"]["2-quantize"]["measurement"]
    assert details["parity"]["max_abs"] <= details["parity"]["tolerance"]
    assert details["threads"] == 1 and details["timed_runs"] >= 30
    assert record["stages"]["1-prune"]["notes"]
    assert "| baseline |" in (folder / "metrics.md").read_text()
    assert "seed: 0" in (folder / "config.yaml").read_text()
    assert list((folder / "tensorboard" / "baseline").iterdir())
    assert not list(folder.rglob(".*")), "temporary files were left behind"


def test_the_saved_model_is_the_measured_one(pruned: tuple[Path, list[dict]]) -> None:
    folder, rows = pruned
    model = keras.saving.load_model(folder / "1-prune" / "model.keras", compile=False)
    assert sum(int(np.count_nonzero(w)) for w in model.get_weights()) == rows[2]["nonzero_params"]


@pytest.mark.slow
def test_a_control_that_equals_the_baseline_is_not_trained_again(tmp_path: Path) -> None:
    rows = run(tmp_path, "opt=[regularize,prune]", "opt.prune.epochs=1")
    assert names(rows) == [
        ("baseline", "baseline", None),
        ("regularize", "stage", "baseline"),
        ("prune", "control", "baseline"),
        ("prune", "stage", "prune control"),
    ]


@pytest.mark.slow
def test_distilling_longer_than_the_baseline_gets_a_student_alone(tmp_path: Path) -> None:
    rows = run(
        tmp_path, "opt=distill", "opt.distill.teacher=mlp", "opt.distill.teacher_epochs=1",
        "opt.distill.epochs=3",
    )  # fmt: skip
    assert names(rows) == [
        ("baseline", "baseline", None),
        ("distill", "control", "baseline"),
        ("distill", "stage", "distill control"),
    ]
    record = json.loads((tmp_path / "record.json").read_text())
    note = record["stages"]["1-distill"]["notes"][0]
    assert note.startswith("teacher mlp: 50,610 parameters, validation accuracy")
    assert (tmp_path / "teachers" / "1-mlp.keras").exists()


@pytest.mark.slow
def test_the_control_of_an_early_stop_runs_as_many_epochs(tmp_path: Path) -> None:
    run(
        tmp_path, "opt=prune", "opt.prune.epochs=12", "train.early_stopping_epochs=1",
        "train.learning_rate=0.01", "train.epochs=6",
    )  # fmt: skip
    epochs = pd.read_csv(tmp_path / "history.csv").groupby("stage").size()
    assert epochs["prune"] == epochs["prune control"] >= 8
    kept = json.loads((tmp_path / "record.json").read_text())["stages"]
    control = kept["1-prune-control"]["training of prune control"]
    assert control["kept_epoch"] > 0.6 * 12, "the control chooses among the same epochs"


@pytest.mark.slow
def test_an_equal_setting_said_aloud_needs_no_control_of_its_own(tmp_path: Path) -> None:
    rows = run(tmp_path, "opt=regularize", "opt.regularize.learning_rate=0.001")
    assert names(rows)[1:] == [("regularize", "stage", "baseline")]


@pytest.mark.slow
def test_quantizing_first_does_not_change_where_a_stage_starts(tmp_path: Path) -> None:
    rows = run(tmp_path, "opt=[quantize,regularize]")
    assert names(rows)[1:] == [
        ("quantize", "stage", "baseline"),
        ("regularize", "stage", "baseline"),
    ]
    assert rows[2]["size_bytes"] < 0.5 * rows[0]["size_bytes"], "the recipe travels on"


@pytest.mark.slow
def test_a_stage_after_one_that_began_anew_goes_on_from_it(tmp_path: Path) -> None:
    rows = run(
        tmp_path, "opt=[regularize,distill]", "opt.distill.teacher=mlp", "opt.distill.epochs=1",
        "opt.distill.teacher_epochs=1",
    )  # fmt: skip
    assert names(rows)[1:] == [
        ("regularize", "stage", "baseline"),
        ("distill", "control", "baseline"),
        ("distill", "stage", "distill control"),
    ]
    first_loss = pd.read_csv(tmp_path / "history.csv").groupby("stage")["val_accuracy"].first()
    assert first_loss["distill"] > first_loss["regularize"], "it did not start from new weights"


@pytest.mark.slow
def test_zeros_survive_rewrites(tmp_path: Path) -> None:
    rows = run(
        tmp_path, "opt=[prune,quantize_friendly,regularize]", "opt.prune.epochs=1",
        "opt.regularize.epochs=1", "opt.quantize_friendly.epochs=1", "control=false",
    )  # fmt: skip
    assert [row["sparsity"] for row in rows[1:]] == pytest.approx([0.8] * 3, abs=0.005)


@pytest.mark.slow
def test_layers_of_the_same_name_in_nested_models_are_all_pruned(tmp_path: Path) -> None:
    def block(units: int) -> keras.Model:
        inputs = keras.Input((units,))
        return keras.Model(inputs, keras.layers.Dense(32, name="same")(inputs))

    inputs = keras.Input((8, 8, 1))
    x = block(64)(keras.layers.Flatten()(inputs))
    outputs = keras.layers.Dense(10)(block(32)(keras.layers.PReLU()(x)))
    keras.Model(inputs, outputs).save(tmp_path / "nested.keras")
    rows = experiment.run(
        compose([
            "arch=keras_model", f"arch.path={tmp_path / 'nested.keras'}", *FAST[2:], "opt=prune",
            "opt.prune.epochs=1", "control=false",
        ]),
        tmp_path,
        allow=(), command=["test"], messages=Console(quiet=True), quiet=True,
    ).rows  # fmt: skip
    assert rows[-1]["sparsity"] == pytest.approx(0.8, abs=0.005)


def test_a_single_step_is_enough_to_prune(tmp_path: Path) -> None:
    rows = run(tmp_path, "opt=prune", "opt.prune.epochs=1", "train.batch_size=600", "control=false")
    assert rows[-1]["sparsity"] == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_epochs_of_an_unfinished_schedule_are_never_kept(tmp_path: Path, seed: int) -> None:
    rows = run(
        tmp_path, "opt=prune", "opt.prune.epochs=5", "train.batch_size=200", f"seed={seed}",
        "train.learning_rate=0.05", "control=false",
    )  # fmt: skip
    assert rows[-1]["sparsity"] == pytest.approx(0.8, abs=0.001)


def test_a_loss_that_explodes_within_the_first_call_is_divergence(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="the loss grew"):
        run(tmp_path, "train.learning_rate=1e6")


@pytest.mark.slow
def test_without_controls(tmp_path: Path) -> None:
    rows = run(tmp_path, "opt=prune", "opt.prune.epochs=1", "control=false")
    assert names(rows) == [("baseline", "baseline", None), ("prune", "stage", None)]


def test_the_same_seed_gives_the_same_figures(tmp_path: Path) -> None:
    overrides = ["opt=[prune,quantize]", "opt.prune.epochs=1", "data.augment.shift_fraction=0.1"]
    tables = [
        pd.read_csv((run(folder, *overrides), folder / "metrics.csv")[1])
        for folder in (tmp_path / "first", tmp_path / "second")
    ]
    pd.testing.assert_frame_equal(*(table.drop(columns=TIMING) for table in tables))
    (other,) = run(tmp_path / "other", "data.augment.shift_fraction=0.1", "seed=1")
    assert other["loss"] != tables[0]["loss"][0]


def test_divergence_keeps_what_there_was(tmp_path: Path) -> None:
    with pytest.raises(
        DivergedError, match=r"at step \d+ of 'prune'.*opt\.prune\.learning_rate"
    ) as info:
        run(tmp_path, "opt=prune", "opt.prune.learning_rate=1e30", "train.optimizer=sgd")
    assert str(tmp_path / "1-prune" / "last_good.keras") in str(info.value)
    model = keras.saving.load_model(tmp_path / "1-prune" / "last_good.keras", compile=False)
    assert all(np.isfinite(w).all() for w in model.get_weights())
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["status"] == "failed" and "prune" in record["error"]
    assert [row["stage"] for row in record["rows"]] == ["baseline"]
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == 1


def test_a_file_that_computes_something_else_fails_its_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from netopt_cli import measuring

    original = measuring.export_network
    first: list[bytes] = []

    def swapped(network, data, seed):
        graph, content = original(network, data, seed)
        first.append(content)
        return graph, first[0]

    monkeypatch.setattr(measuring, "export_network", swapped)
    with pytest.raises(ParityError):
        run(tmp_path, "opt=regularize", "opt.regularize.dropout=0.5")
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["status"] == "failed"
    assert [row["stage"] for row in record["rows"]] == ["baseline"]
