"""What Weights & Biases would send of an offline run, read from its files."""

import subprocess
import sys
from pathlib import Path

import pytest
from tracked import ROW
from wandb_file import offline_runs

HERE = Path(__file__).parent
TWICE = """
import sys
from pathlib import Path
from tracked import epoch, run_in, tell_all
from netopt_cli.tracking.wandb import WandB

folder = Path(sys.argv[1])
first = WandB()
known = first.begin(run_in(folder), None)
tell_all(first, folder, "failed")
second = WandB(models=True)
assert second.begin(run_in(folder, epochs=3), known) == known
second.epoch(epoch("baseline", 3))
second.end("completed", [folder / "config.yaml"], [folder / "1-prune" / "model.tflite"])
other = WandB()
assert other.begin(run_in(folder), "../../etc") != "../../etc"
other.end("completed", (), ())
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run directory, and the home of who ran it. In a process: W&B keeps its settings in one."""
    folder, home = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("home")
    environment = {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": f"{HERE}:{HERE.parents[1]}",
    }
    done = subprocess.run(
        [sys.executable, "-c", TWICE, str(folder)],
        env=environment, cwd=home, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stdout and not done.stderr, "the terminal is netopt's"
    return folder, home


def test_a_run_is_offline_in_the_run_directory_and_nowhere_else(told: tuple[Path, Path]) -> None:
    folder, home = told
    assert len(offline_runs(folder)) == 3
    assert not list(home.rglob("*"))


def test_it_has_the_settings_the_curves_and_the_row(told: tuple[Path, Path]) -> None:
    run = offline_runs(told[0])[0]
    assert run.run.project == "netopt" and run.run.run_group == "sweep"
    assert run.run.display_name == "sweep/0-mlp"
    assert run.config["opt"] == {"prune": {"sparsity": 0.8}} and run.config["seeds"] is None
    assert run.config["run"]["dataset"] == "digits"
    losses = [(each["baseline/epoch"], each["baseline/loss"]) for each in run.history[:2]]
    assert losses == [(1, 0.9), (2, 0.4)]
    assert run.history[2]["prune control/learning_rate"] == 0.001
    axes = {metric.glob_name: metric.step_metric for metric in run.metrics if metric.glob_name}
    assert axes["prune control/*"] == "prune control/epoch"
    rows = {name: v for name, v in run.summary.items() if name.startswith("prune/stage/")}
    assert rows == {"prune/stage/accuracy": ROW["accuracy"], "prune/stage/params": 10}
    assert run.summary["status"] == "failed" and run.exit_code == 1


def test_nothing_else_is_sent(told: tuple[Path, Path]) -> None:
    for run in offline_runs(told[0]):
        others = {name for name in run.files if not name.startswith("netopt/")}
        assert not others, "no source, no packages, no machine, no terminal"
        assert not run.run.host and not run.run.git.commit
    first, second, _ = offline_runs(told[0])
    assert first.files == {"netopt/config.yaml"}, "no networks unless models=true"
    assert second.files == {"netopt/config.yaml", "netopt/1-prune/model.tflite"}


def test_what_goes_on_has_the_same_id_and_its_steps_follow(told: tuple[Path, Path]) -> None:
    first, second, other = offline_runs(told[0])
    assert first.run.run_id == second.run.run_id != other.run.run_id
    steps = [each["_step"] for run in (first, second) for each in run.history]
    assert steps == [0, 1, 2, 3]
    assert second.history[0]["baseline/epoch"] == 3 and second.exit_code == 0
