"""What MLflow finds in its store, and what a server that does not answer leads to."""

import time
from pathlib import Path

import mlflow
import pytest
from tracked import CONFIG, epoch, run_in, tell_all

from netopt_cli.tracking.mlflow import MLflow, parameters


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where netopt is called: making the tables of a store takes seconds."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(autouse=True)
def there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def client(place: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{place}/runs/.mlflow/mlflow.db")


def artifacts(place: Path, run_id: str) -> set[str]:
    home = place / "runs" / ".mlflow" / "artifacts" / run_id / "artifacts"
    return {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}


def test_a_run_in_the_store_beside_the_runs(place: Path, tmp_path: Path) -> None:
    tracker = MLflow()
    run_id = tracker.begin(run_in(tmp_path), None)
    tell_all(tracker, tmp_path)
    found = client(place).get_run(run_id)
    assert client(place).get_experiment(found.info.experiment_id).name == "netopt"
    assert found.info.run_name == "sweep/0-mlp" and found.info.status == "FINISHED"
    expected = {
        "command": "netopt train", "dataset": "digits", "group": "sweep", "status": "completed",
    }  # fmt: skip
    assert expected.items() <= found.data.tags.items()
    assert found.data.params == {
        "arch.widths": "[8, 4]", "opt.prune.sparsity": "0.8", "seeds": "null",
    }  # fmt: skip
    losses = client(place).get_metric_history(run_id, "baseline/loss")
    assert [(each.step, each.value) for each in losses] == [(1, 0.9), (2, 0.4)]
    rows = {name: v for name, v in found.data.metrics.items() if name.startswith("prune/stage/")}
    assert rows == {"prune/stage/accuracy": 0.9, "prune/stage/params": 10.0}
    assert found.data.metrics["prune control/learning_rate"] == 0.001
    assert artifacts(place, run_id) == {"config.yaml"}, "no networks unless models=true"


def test_the_same_run_goes_on_and_one_that_is_gone_begins_anew(place: Path, tmp_path: Path) -> None:
    first = MLflow()
    run_id = first.begin(run_in(tmp_path), None)
    tell_all(first, tmp_path, "interrupted")
    assert client(place).get_run(run_id).info.status == "KILLED"
    second = MLflow(models=True)
    assert second.begin(run_in(tmp_path), run_id) == run_id
    assert client(place).get_run(run_id).info.status == "RUNNING"
    second.epoch(epoch("baseline", 3))
    second.end("completed", (), [tmp_path / "1-prune" / "model.tflite"])
    steps = client(place).get_metric_history(run_id, "baseline/accuracy")
    assert [each.step for each in steps] == [1, 2, 3]
    assert client(place).get_run(run_id).info.status == "FINISHED"
    assert artifacts(place, run_id) == {"config.yaml", "1-prune/model.tflite"}
    client(place).delete_run(run_id)
    for gone in (run_id, "0" * 32, "../../etc"):
        again = MLflow()
        assert again.begin(run_in(tmp_path), gone) != gone
        again.end("failed", (), ())


def test_settings_are_cut_to_what_mlflow_takes(place: Path, tmp_path: Path) -> None:
    config = {"long": "x" * 7000, "ümlaut/../$": 1, "n" * 300: True} | {
        f"key{number}": number for number in range(250)
    }
    run_id = (tracker := MLflow()).begin(run_in(tmp_path, config=config), None)
    tracker.end("completed", (), ())
    params = client(place).get_run(run_id).data.params
    assert len(params) == 253
    assert len(params["long"]) == 6000 and params["_mlaut_..__"] == "1"
    assert parameters(CONFIG)["opt.prune.sparsity"] == "0.8"


def test_a_server_that_does_not_answer_is_known_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    start = time.monotonic()
    with pytest.raises(mlflow.exceptions.MlflowException, match=r"127\.0\.0\.1.*[Cc]onnection"):
        MLflow().begin(run_in(tmp_path), None)
    assert time.monotonic() - start < 60, "of MLflow's own, which are minutes"


def test_nobody_is_called_but_the_server(place: Path, tmp_path: Path) -> None:
    from mlflow.telemetry.utils import is_telemetry_disabled

    MLflow().begin(run_in(tmp_path), None)
    assert is_telemetry_disabled()
