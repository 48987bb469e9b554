"""What becomes of a run when a tracker fails, and what trackers are told when it goes on."""

import csv
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from netopt_cli.contracts import TrackedRun
from netopt_cli.errors import MissingExtraError, TrackingError
from netopt_cli.observer import Epoch
from netopt_cli.record import Record
from netopt_cli.tables import COLUMNS
from netopt_cli.trackers import Trackers

RUN = TrackedRun(Path(), "run", None, {}, {}, 0)
FACTS = {
    "config": {"seed": 0},
    "dataset": {"name": "digits", "fingerprint_sha256": "ab"},
    "pipeline": [],
}


class Listener:
    """A tracker that writes down what it is told, and fails where it is to."""

    def __init__(self, fails_in: str = "", error: Exception | None = None) -> None:
        self.told: list[Any] = []
        self.known: str | None = None
        self._fails_in = fails_in
        self._error = error or OSError("no route to host")

    def begin(self, run: TrackedRun, known: str | None) -> str | None:
        self.known = known
        self._hear("begin", run)
        return known or "id-1"

    def epoch(self, epoch: Epoch) -> None:
        self._hear("epoch", (epoch.stage, epoch.epoch))

    def row(self, row: Mapping[str, Any]) -> None:
        self._hear("row", row["stage"])

    def end(self, status: str, files: Sequence[Path], models: Sequence[Path]) -> None:
        self._hear("end", (status, [path.name for path in (*files, *models)]))

    def of(self, kind: str) -> list[Any]:
        return [what for each, what in self.told if each == kind]

    def _hear(self, kind: str, what: Any) -> None:
        if kind == self._fails_in:
            raise self._error
        self.told.append((kind, what))


def epoch(stage: str, number: int) -> Epoch:
    return Epoch(stage, number, 3, 0.5, 0.8, 0.6, 0.7, 0.001, 1.0, 1000.0)


def row(stage: str) -> dict[str, Any]:
    figures = dict.fromkeys(COLUMNS, 1)
    return figures | {
        "stage": stage,
        "role": "stage",
        "control": None,
        "trained_by": "",
        "metric": "accuracy",
    }


def record_in(folder: Path, *trackers: Listener, said: list[str] | None = None) -> Record:
    told = {f"listener{number}": tracker for number, tracker in enumerate(trackers, start=1)}
    say = (said if said is not None else []).append
    return Record(
        folder, config_yaml="seed: 0\n", command=["netopt", "train", "a b"], seed=0, facts=FACTS,
        trackers=Trackers(told, say), group="sweep",
    )  # fmt: skip


def test_a_record_needs_no_tensorflow() -> None:
    check = "import sys, netopt_cli.record; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_tracker_hears_all_of_a_run(tmp_path: Path) -> None:
    tracker = Listener()
    record = record_in(tmp_path, tracker)
    record.add_epoch(epoch("baseline", 1))
    record.add_row(row("baseline"))
    record.save_file("0-baseline", b"tflite")
    record.finish("completed")
    assert [kind for kind, _ in tracker.told] == ["begin", "epoch", "row", "end"]
    (run,) = tracker.of("begin")
    assert run.name == f"sweep/{tmp_path.name}" and run.group == "sweep"
    assert run.config == {"seed": 0} and run.epochs == 0
    assert run.tags["command"] == "netopt train 'a b'" and run.tags["dataset_sha256"] == "ab"
    files = ["config.yaml", "history.csv", "metrics.csv", "metrics.md", "record.json"]
    assert tracker.of("end") == [("completed", [*files, "model.tflite"])]


def test_a_tracker_that_cannot_begin_refuses_the_run_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    before = Listener()
    failing = Listener("begin", OSError("POST https://me:secret@host/x failed\nTraceback …"))
    with pytest.raises(TrackingError) as refused:
        record_in(tmp_path, before, failing)
    assert str(refused.value) == ("tracking=listener2 cannot begin: POST https://host/x failed"), (
        "one line, without a password"
    )
    assert before.of("end") == [("failed", [])], "it does not wait for a run that does not come"
    assert not list(tmp_path.iterdir())
    with pytest.raises(MissingExtraError):
        record_in(tmp_path, Listener("begin", MissingExtraError("tracking=x", "tracking")))


@pytest.mark.parametrize("kind", ["epoch", "row", "end"])
def test_a_tracker_that_fails_later_is_told_nothing_more_and_the_run_goes_on(
    kind: str, tmp_path: Path
) -> None:
    failing, other, said = Listener(kind), Listener(), list[str]()
    record = record_in(tmp_path, failing, other, said=said)
    for number in (1, 2):
        record.add_epoch(epoch("baseline", number))
    record.add_row(row("baseline"))
    record.finish("completed")
    assert len(said) == 1 and "listener1 is told nothing more" in said[0]
    assert "no route to host" in said[0]
    heard = [each for each, _ in failing.told]
    assert heard == {"epoch": ["begin"], "row": ["begin", "epoch", "epoch"]}.get(
        kind, ["begin", "epoch", "epoch", "row"]
    )
    assert len(other.told) == 5
    facts = json.loads((tmp_path / "record.json").read_text())
    assert facts["tracking"]["listener1"]["failed"] == "no route to host"
    assert facts["status"] == "completed"


def history(folder: Path) -> list[tuple[str, str]]:
    with (folder / "history.csv").open() as file:
        return [(each["stage"], each["epoch"]) for each in csv.DictReader(file)]


def test_no_epoch_is_told_twice_however_often_a_run_is_killed(tmp_path: Path) -> None:
    # A stage may train several times under its name: born_again does.
    all_epochs = [epoch("baseline", 1), epoch("baseline", 2), epoch("again", 1), epoch("again", 1)]
    told: list[Any] = []
    for reached in (3, 1, 4):
        tracker = Listener()
        record = record_in(tmp_path, tracker)
        assert tracker.known == (None if reached == 3 else "id-1")
        assert tracker.of("begin")[0].epochs == (0 if reached == 3 else 3)
        for each in all_epochs[:reached]:
            record.add_epoch(each)
        told += tracker.of("epoch")
        assert len(history(tmp_path)) == max(reached, 3), "it never shrinks"
    assert told == [(each.stage, each.epoch) for each in all_epochs]
    assert history(tmp_path) == [(each.stage, str(each.epoch)) for each in all_epochs]


@pytest.mark.parametrize("content", ["", "stage\n", "a,b\n1\n", "\0", '"' + "x" * 200_000])
def test_a_broken_history_is_none(content: str, tmp_path: Path) -> None:
    record_in(tmp_path, Listener()).add_epoch(epoch("baseline", 1))
    (tmp_path / "history.csv").write_text(content)
    tracker = Listener()
    record_in(tmp_path, tracker).add_epoch(epoch("baseline", 1))
    assert tracker.of("epoch") == [("baseline", 1)]


@pytest.mark.parametrize("before", [None, [], {"a": 1}, {"a": {"id": 3}}, {"b": {"id": "x"}}])
def test_what_a_record_says_of_trackers_may_be_anything(before: Any) -> None:
    tracker = Listener()
    Trackers({"a": tracker}, print).begin(RUN, before)
    assert tracker.known is None


def test_a_run_that_a_tracker_does_not_find_again_is_said() -> None:
    said: list[str] = []

    class Forgetful(Listener):
        def begin(self, run: TrackedRun, known: str | None) -> str:
            return "new"

    trackers = Trackers({"a": Forgetful()}, said.append)
    trackers.begin(RUN, {"a": {"id": "old"}})
    assert trackers.facts == {"a": {"id": "new"}}
    assert "old" in said[0]


def test_a_history_calls_scores_by_their_metric(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    record.add_epoch(epoch("baseline", 1))
    header = (tmp_path / "history.csv").read_text().splitlines()[0]
    assert header == (
        "stage,epoch,epochs,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds,"
        "samples_per_second"
    )
    record.add_epoch(replace(epoch("prune", 1), metric="ndcg_at_10", score=math.nan))
    first, second = csv.DictReader((tmp_path / "history.csv").open())
    assert (first["val_accuracy"], first["val_ndcg_at_10"]) == ("0.7", "")
    assert (second["val_accuracy"], second["val_ndcg_at_10"]) == ("", "0.7")
    assert second["ndcg_at_10"] == ""


def test_metrics_csv_of_another_task(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    figures = row("baseline") | {"metric": "rmse", "rmse": 4.123456789, "mae": 3}
    del figures["accuracy"]
    record.add_row(figures)
    (found,) = csv.DictReader((tmp_path / "metrics.csv").open())
    assert (found["rmse"], found["mae"], found["metric"]) == ("4.123457", "3", "rmse")
    assert "accuracy" not in found and "RMSE" in (tmp_path / "metrics.md").read_text()
