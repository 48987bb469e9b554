"""MLflow: a run at MLFLOW_TRACKING_URI, or in a store of its own beside the runs."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netopt_cli.contracts import TrackedRun
from netopt_cli.observer import Epoch
from netopt_cli.tracked import curves_of_stage, figures, require_packages

if TYPE_CHECKING:
    from mlflow import MlflowClient

STORE = Path("runs/.mlflow")
"""Where runs are when MLFLOW_TRACKING_URI names no server: an SQLite file and the artifacts."""

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that does not answer is known after seconds, not after minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
"""What holds where the user has set nothing."""

_LOCK_SECONDS = 60
"""How long a run waits for another one that writes into the same SQLite file."""
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_LONGEST_KEY, _LONGEST_PARAM, _LONGEST_TAG, _PARAMS_AT_ONCE = 250, 6000, 5000, 100
"""Limits of MLflow: characters, and parameters in one request."""
_STATUS = {"completed": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MLflow:
    """A run of the experiment `netopt`, or that of MLFLOW_EXPERIMENT_NAME.

    Args:
        models: Whether the networks and files of the stages are uploaded too.
    """

    def __init__(self, models: bool = False) -> None:
        require_packages("tracking=mlflow", "mlflow", "sqlalchemy", "alembic")
        self._models = models

    def begin(self, run: TrackedRun, known: str | None) -> str:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._folder = run.folder
        server = os.environ.get("MLFLOW_TRACKING_URI")
        if server:
            self._client = _client(server)
            self._run = self._run_of(run, known, artifacts=None)
        else:
            with _alone_in(STORE) as store:
                self._client = _client(f"sqlite:///{store}/mlflow.db?timeout={_LOCK_SECONDS}")
                self._run = self._run_of(run, known, artifacts=(store / "artifacts").as_uri())
        return self._run

    def epoch(self, epoch: Epoch) -> None:
        self._log(curves_of_stage(epoch), epoch.epoch)

    def row(self, row: Mapping[str, Any]) -> None:
        self._log(figures(row), 0)

    def end(self, status: str, files: Sequence[Path], models: Sequence[Path]) -> None:
        try:
            for path in (*files, *(models if self._models else ())):
                place = path.relative_to(self._folder).parent.as_posix()
                self._client.log_artifact(self._run, str(path), None if place == "." else place)
        finally:
            self._client.set_tag(self._run, "status", status)
            self._client.set_terminated(self._run, _STATUS[status])

    def _run_of(self, run: TrackedRun, known: str | None, artifacts: str | None) -> str:
        """The run of before if it is still there, or a new one."""
        if known is not None and _RUN_ID.fullmatch(known) and self._goes_on(known):
            return known
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "netopt"
        tags = {"status": "running", **run.tags} | ({"group": run.group} if run.group else {})
        made = self._client.create_run(
            self._experiment(name, artifacts),
            run_name=run.name,
            tags={key: value[:_LONGEST_TAG] for key, value in tags.items()},
        )
        found: str = made.info.run_id
        self._describe(found, run.config)
        return found

    def _goes_on(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        if found.info.lifecycle_stage != "active":
            return False
        self._client.update_run(run_id, status="RUNNING")
        self._client.set_tag(run_id, "status", "running")
        return True

    def _experiment(self, name: str, artifacts: str | None) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                made: str = self._client.create_experiment(name, artifacts)
                return made
            except MlflowException:  # another run may have been quicker
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        its_id: str = found.experiment_id
        return its_id

    def _describe(self, run_id: str, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, value) for key, value in parameters(config).items()]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(run_id, params=params[start : start + _PARAMS_AT_ONCE])

    def _log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)


def parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings as MLflow takes them: `opt.prune.sparsity` -> text, names and texts within its
    limits."""
    return {
        re.sub(r"[^\w\-. ]", "_", key, flags=re.ASCII)[:_LONGEST_KEY]: value[:_LONGEST_PARAM]
        for key, value in _flat(config, "")
    }


def _flat(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient  # takes seconds

    return MlflowClient(tracking_uri=uri)


@contextmanager
def _alone_in(folder: Path) -> Iterator[Path]:
    """Makes a folder and keeps other runs waiting: only one of them may make the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield folder.absolute()
    finally:
        os.close(held)
