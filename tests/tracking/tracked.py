"""A run as trackers are told of one."""

from pathlib import Path
from typing import Any

from netopt_cli.contracts import TrackedRun, Tracker
from netopt_cli.observer import Epoch

ROW = {
    "stage": "prune", "role": "stage", "seed": 3, "accuracy": 0.9, "macs": None, "params": 10,
    "trained_by": "", "control": "prune control",
}  # fmt: skip
CONFIG = {"arch": {"widths": [8, 4]}, "opt": {"prune": {"sparsity": 0.8}}, "seeds": None}


def run_in(folder: Path, **changed: Any) -> TrackedRun:
    given = {
        "folder": folder, "name": "sweep/0-mlp", "group": "sweep", "config": CONFIG,
        "tags": {"command": "netopt train", "dataset": "digits"}, "epochs": 0,
    }  # fmt: skip
    return TrackedRun(**given | changed)


def epoch(stage: str, number: int, loss: float = 0.5, metric: str = "accuracy") -> Epoch:
    return Epoch(stage, number, 3, loss, 0.8, 0.6, 0.7, 0.001, 1.0, 1000.0, metric)


def tell_all(tracker: Tracker, folder: Path, status: str = "completed") -> None:
    """Two epochs of the baseline, one of a control, a row, and the end with its files."""
    for each in (epoch("baseline", 1, 0.9), epoch("baseline", 2, 0.4), epoch("prune control", 1)):
        tracker.epoch(each)
    tracker.row(ROW)
    (folder / "config.yaml").write_text("seed: 0\n")
    stage = folder / "1-prune"
    stage.mkdir(exist_ok=True)
    (stage / "model.tflite").write_bytes(b"tflite")
    tracker.end(status, [folder / "config.yaml"], [stage / "model.tflite"])
