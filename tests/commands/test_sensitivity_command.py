"""`netopt sensitivity` around a scan that is played."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig

import netopt_cli
from netopt_cli import app
from netopt_cli.errors import EXIT_FAILED, EXIT_OK, EXIT_WRONG_INPUT, DivergedError

ROW = {
    "technique": "prune", "layer": "conv/kernel", "level": 0.5, "params": 288, "macs_share": None,
    "loss": float("nan"), "accuracy": 0.5, "drop": 0.25,
}  # fmt: skip


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Plays `netopt_cli.sensitivity`; what it was called with."""
    seen: list[dict[str, Any]] = []

    def run(config: DictConfig, run_dir: Path, **given: Any) -> list[dict[str, Any]]:
        seen.append({"config": config, "run_dir": run_dir, **given})
        if config.seed == 13:
            (run_dir / "record.json").write_text(json.dumps({"responses": [ROW | {"loss": 1}]}))
            raise DivergedError("the loss is NaN")
        return [ROW]

    played = SimpleNamespace(run=run)
    monkeypatch.setitem(sys.modules, "netopt_cli.sensitivity", played)
    monkeypatch.setattr(netopt_cli, "sensitivity", played, raising=False)
    monkeypatch.chdir(tmp_path)
    return seen


def test_a_scan_composes_like_a_run(
    calls: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["+arch=mlp", "seed=4", "--of", "bits,prune", "--samples", "7", "-q"]
    assert app.main(["sensitivity", *words]) == EXIT_OK
    *table, shown = capfd.readouterr().out.splitlines()
    assert re.fullmatch(r"runs/\d{8}-\d{6}-mlp-sensitivity", shown)
    assert any("conv/kernel" in line and "25.00" in line for line in table)
    (call,) = calls
    assert call["config"].seed == 4
    assert (call["techniques"], call["samples"], call["quiet"]) == (("prune", "bits"), 7, True)
    assert call["run_dir"] == Path(shown).absolute()
    call["started"]()
    assert Path("runs/latest").resolve() == call["run_dir"]


def test_json_is_one_line(calls: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]) -> None:
    assert app.main(["sensitivity", "--json"]) == EXIT_OK
    line, shown = capfd.readouterr().out.splitlines()
    rows = [ROW | {"loss": None}]
    assert json.loads(line) == {"run_dir": shown, "rows": rows, "status": "completed"}


def test_a_scan_that_fails_shows_what_it_had(
    calls: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["sensitivity", "seed=13"]) == EXIT_FAILED
    captured = capfd.readouterr()
    assert "conv/kernel" in captured.out
    assert captured.err == "error: the loss is NaN\n"


def test_a_model_stands_for_an_arch(calls: list[dict[str, Any]]) -> None:
    assert app.main(["sensitivity", "--model", "it's, mine.keras"]) == EXIT_OK
    assert calls[0]["config"].arch.path == "it's, mine.keras"
    assert calls[0]["run_dir"].name.endswith("-keras_model-sensitivity")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--of", "bit"], "--of has no technique 'bit'. Did you mean 'bits'?"),
        (["--samples", "0"], "--samples must be at least 1. Received: 0"),
        (["--model", "m.keras", "arch=cnn"], "--model brings its own arch: leave arch=cnn out"),
        (["arch=cnnn"], "unknown arch 'cnnn'"),
        (["-m", "seed=0,1"], "unknown option '-m'"),
    ],
)
def test_bad_input_makes_no_directory(
    words: list[str],
    said: str,
    calls: list[dict[str, Any]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert app.main(["sensitivity", *words]) == EXIT_WRONG_INPUT
    assert capfd.readouterr().err.startswith(f"error: {said}")
    assert calls == []
    assert not Path("runs").exists()
