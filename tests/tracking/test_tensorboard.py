"""What TensorBoard finds in a run directory."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from tracked import epoch, run_in, tell_all

from netopt_cli.tracked import curves
from netopt_cli.tracking.tensorboard import TensorBoard


def curve(folder: Path, stage: str, name: str) -> list[tuple[int, float]]:
    logs = str(folder / "tensorboard" / stage)
    events = EventAccumulator(logs, size_guidance={"tensors": 0}).Reload()
    return [(each.step, float(make_ndarray(each.tensor_proto))) for each in events.Tensors(name)]


def test_each_training_has_its_curves_with_the_epoch_as_step(tmp_path: Path) -> None:
    tracker = TensorBoard()
    tracker.begin(run_in(tmp_path), None)
    tell_all(tracker, tmp_path)
    assert curve(tmp_path, "baseline", "loss") == [(1, pytest.approx(0.9)), (2, pytest.approx(0.4))]
    for name in curves(epoch("prune control", 1)):
        assert len(curve(tmp_path, "prune control", name)) == 1


def test_curves_are_called_by_the_metric_and_none_is_drawn_of_what_is_unknown(
    tmp_path: Path,
) -> None:
    found = curves(replace(epoch("baseline", 1, metric="rmse"), score=math.nan))
    assert list(found) == ["loss", "val_loss", "val_rmse", "learning_rate"]
    tracker = TensorBoard()
    tracker.begin(run_in(tmp_path), None)
    tracker.epoch(epoch("baseline", 1, metric="rmse"))
    tracker.end("completed", (), ())
    assert len(curve(tmp_path, "baseline", "val_rmse")) == 1


def test_a_run_that_goes_on_continues_its_curves(tmp_path: Path) -> None:
    for number in (1, 2):
        tracker = TensorBoard()
        tracker.begin(run_in(tmp_path), None)
        tracker.epoch(epoch("baseline", number))
        tracker.end("completed", (), ())
    assert [step for step, _ in curve(tmp_path, "baseline", "accuracy")] == [1, 2]
