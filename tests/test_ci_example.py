"""docs/ci.md: its commands are run as they stand there, the CI job's in the job's order."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

DOCUMENT = Path(__file__).parents[1] / "docs" / "ci.md"


def block(language: str) -> str:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[0]


def job() -> list[str]:
    """What the steps of the workflow run, but for the installation."""
    (gate,) = yaml.safe_load(block("yaml"))["jobs"].values()
    commands = [step["run"] for step in gate["steps"] if "run" in step]
    assert commands.pop(0) == "pip install netopt"
    return commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `netopt` on its path, and the baseline made by the commands of the document."""
    folder = tmp_path_factory.mktemp("ci")
    program = folder / "bin" / "netopt"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m netopt_cli.app "$@"\n')
    program.chmod(0o755)
    for command in block("sh").splitlines():
        done = shell(command, folder)
        assert done.returncode == 0, done.stderr
    return folder


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(DOCUMENT.parents[1]),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", command],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip


def test_the_job_trains_what_the_baseline_was_made_of() -> None:
    assert job()[0] == block("sh").splitlines()[0]


@pytest.mark.slow
def test_the_gate_passes_what_has_not_changed(folder: Path) -> None:
    done = shell(job()[1], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "checks ok" in done.stdout
    assert ElementTree.parse(folder / "check.xml").getroot()[0].get("failures") == "0"


@pytest.mark.slow
def test_the_gate_stops_a_drop(folder: Path) -> None:
    path = folder / "baseline.json"
    baseline = json.loads(path.read_text())
    accuracy = baseline["rows"]["quantize"]["figures"]["accuracy"]
    # Such a baseline that the run is a point worse than it, beyond what the spread allows.
    accuracy["mean"] += 0.01 + 10 * accuracy["sd"]
    path.write_text(json.dumps(baseline))
    done = shell(job()[1], folder)
    assert done.returncode == 1
    assert "accuracy of quantize" in done.stdout
    assert "accuracy of quantize" in (folder / "summary.md").read_text()
    assert ElementTree.parse(folder / "check.xml").getroot()[0].get("failures") == "1"


@pytest.mark.parametrize("text", re.findall(r'"rules": \{\n.*?\n\}', DOCUMENT.read_text(), re.S))
def test_the_rules_in_the_document_are_rules(text: str) -> None:
    from netopt_cli.baseline_file import Baseline
    from netopt_cli.checking import default_rules

    shown = json.loads(f"{{{text}}}")["rules"]
    made_of = {"run": "", "command": "", "seeds": [], "started": "", "data": "",
               "fingerprint": "", "git_commit": "", "processor": ""}  # fmt: skip
    read = Baseline.model_validate({"made_of": made_of, "rules": shown, "rows": {}})
    assert read.rules.items() <= default_rules(seeds=3).items()
