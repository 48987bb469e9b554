"""The key `export`, from its check to the files and the table of a run."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_line import CommandLine

from netopt_cli.app import main
from netopt_cli.completion import candidates
from netopt_cli.config import compose
from netopt_cli.errors import EXIT_WRONG_INPUT, ConfigError, MissingExtraError
from netopt_cli.export.formats import further
from netopt_cli.export_table import COLUMNS


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        ((), ()),
        (["litert"], ()),
        ("onnx", ("onnx",)),
        (["saved_model", "onnx", "litert", "onnx"], ("onnx", "saved_model")),
    ],
)
def test_litert_is_not_a_further_format(requested, expected):
    assert further(requested) == expected


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "tf2onnx"])
def test_a_missing_package_names_the_extra_before_anything_is_made(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
):
    monkeypatch.setitem(sys.modules, package, None)
    assert further(["litert", "saved_model"]) == ("saved_model",)
    with pytest.raises(MissingExtraError):
        further("onnx")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "export=[onnx]"]) == EXIT_WRONG_INPUT
    assert "pip install 'netopt[onnx]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["onnx", "[litert]", "[litert,onnx,saved_model]", "[]"])
def test_values_of_the_key(value: str):
    compose([f"export={value}"])


def test_a_wrong_format_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"^export must be .*Did you mean 'onnx'\?"):
        compose(["export=onx"])
    with pytest.raises(ConfigError, match=r"^export must be 'litert', 'onnx' or 'saved_model'"):
        compose(["export=[litert,onx]"])


def test_completion_knows_the_formats():
    assert candidates("netopt train expor") == ["export="]
    assert candidates("netopt train export=[litert,o") == ["export=[litert,onnx"]


@pytest.mark.slow
def test_a_run_keeps_measures_and_tables_every_format(netopt: CommandLine):
    done = netopt(
        "train", "arch=mlp", "arch.hidden=[16]", "opt=quantize", "train.epochs=1",
        "data.train_limit=300", "target.warmup_runs=2", "target.timed_runs=30",
        "export=[litert,onnx,saved_model]", "hydra.run.dir=out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = netopt.folder / "out"
    table = pd.read_csv(folder / "exports.csv")
    assert list(table.columns) == list(COLUMNS)
    assert list(zip(table["stage"], table["format"], table["scheme"], strict=True)) == [
        ("baseline", "litert", "float32"),
        ("baseline", "onnx", "float32"),
        ("baseline", "saved_model", "float32"),
        ("quantize", "litert", "int8"),
        ("quantize", "onnx", "int8"),
        ("quantize", "saved_model", "float32"),
    ]
    sizes = table.set_index(["stage", "format"])["size_bytes"]
    for stage, label in (("baseline", "0-baseline"), ("quantize", "1-quantize")):
        assert (folder / label / "model.tflite").stat().st_size == sizes[stage, "litert"]
        assert (folder / label / "model.onnx").stat().st_size == sizes[stage, "onnx"]
        files = [file for file in (folder / label / "saved_model").rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in files) == sizes[stage, "saved_model"]
    by_stage = table.groupby("stage")
    assert by_stage["fastest"].sum().tolist() == [1, 1]
    best = table[table["fastest"]].set_index("stage")["latency_ms_median"]
    assert best.to_dict() == by_stage["latency_ms_median"].min().to_dict()
    record = json.loads((folder / "record.json").read_text())
    assert [row["format"] for row in record["exports"]] == table["format"].tolist()
    assert "saved_model is float32, not int8" in record["stages"]["1-quantize"]["notes"]
    assert "| quantize | onnx | int8 |" in (folder / "exports.md").read_text()
    lines = [line for line in done.stdout.splitlines() if line.startswith("fastest export of ")]
    assert [line.split()[3] for line in lines] == ["baseline:", "quantize:"]
    assert "exported files" in done.stdout


@pytest.mark.slow
def test_without_a_further_format_there_is_no_such_table(netopt: CommandLine):
    done = netopt(
        "train", "arch=mlp", "arch.hidden=[8]", "train.epochs=1", "data.train_limit=200",
        "target.warmup_runs=2", "target.timed_runs=30", "hydra.run.dir=out", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list((netopt.folder / "out").glob("exports*"))
    assert set(json.loads(done.stdout.splitlines()[0])) == {"run_dir", "rows", "status"}
