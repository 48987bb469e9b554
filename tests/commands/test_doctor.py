"""`netopt doctor`: what is there, what is missing, and the exit code."""

from pathlib import Path

import pytest

from netopt_cli import __version__, app
from netopt_cli.commands import doctor
from netopt_cli.errors import EXIT_FAILED, EXIT_OK


def report(capfd: pytest.CaptureFixture[str]) -> dict[str, str]:
    lines = [line.strip().split(maxsplit=1) for line in capfd.readouterr().out.splitlines()]
    return {words[0]: words[1] for words in lines if len(words) == 2}


def test_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "datasets" / "mnist").mkdir(parents=True)
    assert app.main(["doctor"]) == EXIT_OK
    said = report(capfd)
    assert said["netopt"] == __version__
    assert said["tensorflow"].startswith("2.")
    assert "usable of" in said["threads"]
    assert said["/physical_device:CPU:0"].strip() == "CPU"
    assert "can be written" in said["runs"]
    assert "mnist" in said["data"]


def test_a_missing_extra_has_a_hint_and_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "_EXTRAS", {"onnx": (("no.such", "json"), "the export")})
    assert app.main(["doctor"]) == EXIT_OK
    assert report(capfd)["onnx"].strip() == (
        "no.such missing for the export: pip install 'netopt[onnx]'"
    )


def test_problems_set_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "_PACKAGES", ("no-such-package",))
    (tmp_path / "runs").touch()
    assert app.main(["doctor"]) == EXIT_FAILED
    said = capfd.readouterr().err
    assert "problem: no-such-package is not installed" in said
    assert "problem: cannot write to runs: File exists" in said
