"""Trackers from the command line: runs that fail and go on, seeds, servers that go away."""

import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
from command_line import CommandLine
from test_tensorboard import curve
from wandb_file import offline_runs

from netopt_cli.app import main
from netopt_cli.completion import candidates
from netopt_cli.components import build
from netopt_cli.config import compose
from netopt_cli.errors import EXIT_WRONG_INPUT, ConfigError

FAST = (
    "data=digits", "arch=mlp", "arch.hidden=[8]", "train.epochs=2", "train.batch_size=200",
    "control=false", "target.timed_runs=5", "target.warmup_runs=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    for name in list(os.environ):
        assert not name.startswith(("MLFLOW_TRACKING", "WANDB_MODE")), "the tests need defaults"
    return CommandLine(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def resumed(place: CommandLine) -> Path:
    """A run that failed after its baseline was measured, for its next folder was a file, and was
    gone on with: once in vain."""
    folder = place.folder / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "1-regularize").write_text("in the way")
    done = place.alone(
        "train", *FAST, "opt=regularize", "opt.regularize.epochs=1", "hydra.run.dir=runs/one",
        "tracking=[mlflow,wandb]",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    for chatter in ("mlflow", "wandb", "INFO"):
        assert chatter not in done.stderr + done.stdout
    known = json.loads((folder / "record.json").read_text())["tracking"]
    (folder / "1-regularize").unlink()
    done = place("resume", "runs/one")
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "record.json").read_text())["tracking"] == known
    return folder


def client(place: CommandLine) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{place.folder}/runs/.mlflow/mlflow.db")


def runs_of(place: CommandLine) -> list[Any]:
    experiment = client(place).get_experiment_by_name("netopt")
    return list(client(place).search_runs([experiment.experiment_id]))


def test_mlflow_has_one_run_of_it_with_each_epoch_once(place: CommandLine, resumed: Path) -> None:
    (run,) = [each for each in runs_of(place) if each.info.run_name == "one"]
    assert (
        run.info.run_id
        == json.loads((resumed / "record.json").read_text())["tracking"]["mlflow"]["id"]
    )
    assert run.info.status == "FINISHED" and run.data.tags["status"] == "completed"
    assert run.data.tags["command"].startswith("netopt train data=digits")
    assert run.data.params["opt.regularize.epochs"] == "1"
    for stage, steps in {"baseline": [1, 2], "regularize": [1]}.items():
        found = client(place).get_metric_history(run.info.run_id, f"{stage}/loss")
        assert [each.step for each in found] == steps
    rows = json.loads((resumed / "record.json").read_text())["rows"]
    for row in rows:
        figure = run.data.metrics[f"{row['stage']}/{row['role']}/accuracy"]
        assert figure == pytest.approx(row["accuracy"])
    names = {each.path for each in client(place).list_artifacts(run.info.run_id)}
    assert {"config.yaml", "metrics.csv", "metrics.md", "history.csv", "record.json"} == names


def test_wandb_has_a_part_of_it_for_each_process(resumed: Path) -> None:
    first, second = offline_runs(resumed)
    assert first.run.run_id == second.run.run_id
    told = [
        {key: value for key, value in each.items() if key.endswith("/epoch")}
        for run in (first, second)
        for each in run.history
    ]
    assert told == [{"baseline/epoch": 1}, {"baseline/epoch": 2}, {"regularize/epoch": 1}]
    assert first.summary["status"] == "failed" and second.summary["status"] == "completed"
    assert "regularize/stage/accuracy" in second.summary


def test_tensorboard_has_each_epoch_once(resumed: Path) -> None:
    assert [step for step, _ in curve(resumed, "baseline", "val_loss")] == [1, 2]
    assert [step for step, _ in curve(resumed, "regularize", "val_loss")] == [1]


@pytest.mark.slow
def test_each_seed_is_a_run_of_its_own_in_their_group(place: CommandLine, resumed: Path) -> None:
    done = place(
        "train", *FAST, "seeds=[3,5]", "tracking=mlflow", "tracking.mlflow.models=true",
        "hydra.run.dir=runs/two",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [run for run in runs_of(place) if run.data.tags.get("group") == "two"]
    assert {run.info.run_name for run in found} == {"two/seed-3", "two/seed-5"}
    assert {run.data.params["seed"] for run in found} == {"3", "5"}
    for run in found:
        files = client(place).list_artifacts(run.info.run_id, "0-baseline")
        assert {"model.keras", "model.tflite"} <= {Path(each.path).name for each in files}


NO_SERVER = {
    "mlflow": {"MLFLOW_TRACKING_URI": "http://me:secret@127.0.0.1:1"},
    "wandb": {
        "WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:1",
        "WANDB_API_KEY": "secret" + "0" * 34, "WANDB_INIT_TIMEOUT": "3",
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("tracker", list(NO_SERVER))
def test_a_server_that_does_not_answer_is_an_error_before_training(
    tracker: str, netopt: CommandLine
) -> None:
    done = netopt.alone("train", *FAST, f"tracking={tracker}", env=NO_SERVER[tracker])
    assert done.returncode == 2
    assert f"error: tracking={tracker} cannot begin: " in done.stderr
    assert "secret" not in done.stderr and "Traceback" not in done.stderr
    assert "epoch 1" not in done.stderr
    assert not list((netopt.folder / "runs").iterdir())


class Leaving(BaseHTTPRequestHandler):
    """An MLflow server that answers until the run has its settings."""

    RUN_ID = "0123456789abcdef" * 2

    def answer(self, body: str) -> None:
        path = self.path.partition("?")[0].removeprefix("/api/2.0/mlflow/")
        experiment = {"experiment_id": "1", "name": "netopt", "lifecycle_stage": "active"}
        info = {"run_id": self.RUN_ID, "experiment_id": "1", "status": "RUNNING"}
        answers = {
            "experiments/get-by-name": {"experiment": experiment},
            "runs/create": {"run": {"info": info, "data": {}}},
        }
        found = answers.get(path)
        if path == "runs/log-batch" and "params" in json.loads(body):
            found = {}
        content = json.dumps({"error_code": "NOPE", "message": "out"} if found is None else found)
        self.send_response(400 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content.encode())

    def do_GET(self) -> None:
        self.answer("")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def leaving() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Leaving)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_server_that_goes_away_takes_no_run_along(netopt: CommandLine, leaving: str) -> None:
    done = netopt.alone(
        "train", *FAST, "tracking=mlflow", "hydra.run.dir=run",
        env={"MLFLOW_TRACKING_URI": leaving},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: mlflow is told nothing more of this run") == 1
    assert "Traceback" not in done.stderr
    record = json.loads((netopt.folder / "run" / "record.json").read_text())
    assert record["status"] == "completed" and len(record["rows"]) == 1
    assert record["tracking"]["mlflow"]["id"] == Leaving.RUN_ID
    assert "out" in record["tracking"]["mlflow"]["failed"]


@pytest.mark.parametrize(
    ("tracker", "package"), [("mlflow", "mlflow"), ("mlflow", "alembic"), ("wandb", "wandb")]
)
def test_a_missing_package_names_the_extra_before_anything_is_made(
    tracker: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    assert main(["train", *FAST, f"tracking={tracker}"]) == EXIT_WRONG_INPUT
    error = capsys.readouterr().err
    assert f"tracking={tracker} needs the optional extra 'tracking'" in error
    assert "pip install 'netopt[tracking]'" in error
    shutil.rmtree("runs/latest", ignore_errors=True)
    assert not list(Path("runs").iterdir())


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], []),
        (["tracking=mlflow"], ["mlflow"]),
        (["+tracking=wandb"], ["wandb"]),
        (["tracking=[wandb,mlflow]", "tracking.mlflow.models=true"], ["wandb", "mlflow"]),
        (["tracking=null"], []),
        (["tracking=none"], []),
    ],
)
def test_values_of_the_key(overrides: list[str], expected: list[str]) -> None:
    assert list(compose(overrides).tracking) == expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tracking=mlfow"], "unknown tracking 'mlfow'. Did you mean 'mlflow'?"),
        (["tracking=[mlflow,mlflow]"], "tracking has 'mlflow' twice"),
        (["tracking=mlflow", "tracking=wandb"], "both: tracking=[a,b]"),
        (["tracking=[3]"], "tracking takes names of trackers"),
        (["tracking.wandb.models=true"], "not in tracking=[none]; add it: tracking=[wandb]"),
        (["tracking=wandb", "tracking.wandb.model=true"], "Did you mean 'tracking.wandb.models'?"),
        (["tracking=wandb", "+tracking.wandb.uri=x"], "unknown key 'tracking.wandb.uri'"),
        (["tracking=mlflow", "tracking.mlflow._target_=os.system"], "may not be 'os.system'"),
        (["tracking=mlflow", "tracking.mlflow._target_=netopt_cli.opt.prune.Prune"],
         "must be in netopt_cli.tracking"),
        (["+tracking.x=3"], "unknown key 'tracking.x'"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_answered_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        compose(overrides)


def test_completion_knows_the_trackers() -> None:
    assert candidates("netopt train track") == ["tracking=", "tracking.mlflow.", "tracking.wandb."]
    assert candidates("netopt train tracking=[mlflow,w") == ["tracking=[mlflow,wandb"]
    assert candidates("netopt train tracking=mlflow tracking.") == ["tracking.mlflow.models="]
    assert candidates("netopt show tracking/w") == ["tracking/wandb"]


def test_a_tracker_of_the_user_is_built_when_its_package_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mytrackers.py").write_text(
        "class Lines:\n    def __init__(self, prefix: str) -> None:\n        self.prefix = prefix\n"
    )
    choice = tmp_path / "conf" / "tracking" / "lines.yaml"
    choice.parent.mkdir(parents=True)
    choice.write_text(
        "# @package tracking.lines\n# Lines.\n_target_: mytrackers.Lines\nprefix: '-'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words, folder = ["tracking=lines", "tracking.lines.prefix=+"], tmp_path / "conf"
    with pytest.raises(ConfigError, match="name with --allow"):
        compose(words, config_dir=folder)
    config = compose(words, config_dir=folder, allow=["mytrackers"])
    tracker = build(config.tracking.lines, allow=["mytrackers"], where="tracking.lines")
    assert tracker.prefix == "+"
