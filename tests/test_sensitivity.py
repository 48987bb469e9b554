"""Scans in this process: what a directory gets, and what the figures are of."""

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from netopt_cli import sensitivity
from netopt_cli.components import build
from netopt_cli.config import compose
from netopt_cli.engine.evaluation import Evaluator
from netopt_cli.errors import ArchError, ConfigError
from netopt_cli.graph.response import LEVELS
from netopt_cli.response_table import COLUMNS

FAST = ["data.train_limit=400"]
MLP = ["arch=mlp", "arch.hidden=[32]", "train.epochs=2"]
PATHS = ["dense_1/kernel", "logits/kernel"]


def scan(folder: Path, *overrides: str, messages: Console | None = None, **given) -> list[dict]:
    folder.mkdir(parents=True, exist_ok=True)
    return sensitivity.run(
        compose([*FAST, *overrides]),
        folder,
        allow=(),
        command=["netopt", "sensitivity", *overrides],
        messages=messages or Console(quiet=True),
        quiet=messages is None,
        **{"techniques": list(LEVELS)} | given,
    )


def record_of(folder: Path) -> dict:
    return json.loads((folder / "record.json").read_text())


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("scanned")
    return folder, scan(folder, *MLP)


def test_a_row_for_each_layer_and_level(scanned: tuple[Path, list[dict]]) -> None:
    folder, rows = scanned
    found = [(row["technique"], row["layer"], row["level"]) for row in rows]
    assert found == [
        (technique, layer, level)
        for technique in LEVELS
        for layer in (["dense_1"] if technique == "structured" else PATHS)
        for level in LEVELS[technique]
    ]
    record = record_of(folder)
    assert record["status"] == "completed"
    assert record["kind"] == "sensitivity"
    assert record["responses"] == rows
    table = pd.read_csv(folder / "sensitivity.csv")
    assert tuple(table.columns) == COLUMNS
    np.testing.assert_allclose(table["loss"], [row["loss"] for row in rows], rtol=1e-6)


def test_the_figures_are_of_the_cut_network_on_the_validation_split(
    scanned: tuple[Path, list[dict]],
) -> None:
    folder, rows = scanned
    model = keras.models.load_model(folder / "0-baseline" / "model.keras")
    data = build(compose([*FAST, *MLP]).data, allow=(), where="data", seed=0)
    evaluate = Evaluator(model, data, data.validation)
    loss, accuracy = evaluate()
    uncut = record_of(folder)["uncut"]
    assert uncut["samples"] == len(data.validation)
    assert (uncut["loss"], uncut["accuracy"]) == pytest.approx((loss, accuracy), rel=1e-5)
    kernel = model.get_layer("logits").kernel
    magnitudes = np.sort(np.abs(kernel.numpy()), axis=None)
    kernel.assign(np.where(np.abs(kernel) > magnitudes[kernel.numpy().size // 2 - 1], kernel, 0))
    loss, halved = evaluate()
    (row,) = (
        r for r in rows if (r["technique"], r["layer"], r["level"]) == ("prune", PATHS[1], 0.5)
    )
    assert (row["loss"], row["accuracy"]) == pytest.approx((loss, halved), rel=1e-5)
    assert row["drop"] == pytest.approx(accuracy - halved, abs=1e-6)


def test_params_and_macs_are_those_of_the_layer(scanned: tuple[Path, list[dict]]) -> None:
    sizes = {(r["technique"], r["layer"]): (r["params"], r["macs_share"]) for r in scanned[1]}
    assert sizes["prune", PATHS[0]] == (64 * 32, pytest.approx(64 / 74))
    assert sizes["bits", PATHS[1]] == (32 * 10, pytest.approx(10 / 74))
    # A unit has its weights in, its bias and its weights out.
    assert sizes["structured", "dense_1"] == (32 * (64 + 1 + 10), pytest.approx(64 / 74))


def test_the_most_sensitive_layer_comes_first(scanned: tuple[Path, list[dict]]) -> None:
    folder, rows = scanned
    losses = {
        layer: sum(r["loss"] for r in rows if (r["technique"], r["layer"]) == ("prune", layer))
        for layer in PATHS
    }
    section = (folder / "sensitivity.md").read_text().split("## ")[1]
    assert section.startswith("prune: points of accuracy lost")
    worst, best = sorted(PATHS, key=losses.__getitem__, reverse=True)
    assert section.index(worst) < section.index(best)


def test_the_figure_names_every_layer(scanned: tuple[Path, list[dict]]) -> None:
    folder, rows = scanned
    figure = (folder / "sensitivity.svg").read_text()
    assert figure.startswith("<?xml")
    for text in {row["layer"] for row in rows} | set(LEVELS):
        assert f">{text}</text>" in figure


def test_a_network_from_a_file_is_taken_as_it_is(
    scanned: tuple[Path, list[dict]], tmp_path: Path
) -> None:
    file = scanned[0] / "0-baseline" / "model.keras"
    rows = scan(tmp_path, "arch=keras_model", f"arch.path={file}", techniques=["rank"])
    before = [row for row in scanned[1] if row["technique"] == "rank"]
    assert [r["layer"] for r in rows] == [r["layer"] for r in before]
    assert [r["loss"] for r in rows] == pytest.approx([r["loss"] for r in before], rel=1e-4)
    assert not (tmp_path / "history.csv").exists()


def test_a_network_of_other_classes_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(4)(keras.layers.Flatten()(inputs))
    keras.Model(inputs, outputs).save(tmp_path / "four.keras")
    with pytest.raises(ArchError, match="has 4 outputs, the data 10 classes"):
        scan(tmp_path / "run", "arch=keras_model", f"arch.path={tmp_path / 'four.keras'}")


def test_a_limit_of_samples(scanned: tuple[Path, list[dict]], tmp_path: Path) -> None:
    file = scanned[0] / "0-baseline" / "model.keras"
    given = {"techniques": ["bits"], "samples": 20}
    rows = scan(tmp_path, "arch=keras_model", f"arch.path={file}", **given)
    assert record_of(tmp_path)["uncut"]["samples"] == 20
    assert all((20 * row["accuracy"]) % 1 == pytest.approx(0, abs=1e-6) for row in rows)


def test_an_interrupted_scan_keeps_what_it_had(
    scanned: tuple[Path, list[dict]], tmp_path: Path
) -> None:
    class Interrupting(Console):
        def print(self, *words, **given) -> None:
            if "prune  dense_1/kernel" in words[0]:
                raise KeyboardInterrupt

    file = scanned[0] / "0-baseline" / "model.keras"
    with pytest.raises(KeyboardInterrupt):
        scan(tmp_path, "arch=keras_model", f"arch.path={file}", messages=Interrupting())
    record = record_of(tmp_path)
    assert record["status"] == "interrupted"
    assert [r["layer"] for r in record["responses"]] == [PATHS[0]] * len(LEVELS["prune"])
    assert len(pd.read_csv(tmp_path / "sensitivity.csv")) == len(LEVELS["prune"])


def test_stages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"leave opt=none. Received: opt=\[prune,quantize\]"):
        scan(tmp_path, "opt=[prune,quantize]")
    assert list(tmp_path.iterdir()) == []
