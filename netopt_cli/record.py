"""The only writer into a run directory, and its files; `seed_record` writes the parent of seeds.

    config.yaml  metrics.csv  metrics.md  history.csv  record.json  run.log
    exports.csv  exports.md                     with further formats
    exits.csv  exits.md                         with early exits
    robustness.csv  robustness.md               with robustness=…
    sensitivity.csv  sensitivity.md  sensitivity.svg   of `netopt sensitivity`
    0-baseline/  1-prune/  1-prune-control/ …   model.keras, model.tflite, model.onnx, saved_model/
    teachers/    tensorboard/    wandb/

Every file but the logs is written whole or not at all, as soon as there is something to write: a
run that dies keeps what it had.
"""

from __future__ import annotations

import csv
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from netopt_cli import exit_table, export_table, response_table, robustness_table
from netopt_cli.contracts import TrackedRun
from netopt_cli.environment import describe_environment, describe_git, timestamp
from netopt_cli.files import (
    storage,
    write_atomically,
    write_bytes,
    write_folder_atomically,
    write_json,
    write_text,
)
from netopt_cli.observer import Epoch
from netopt_cli.run_dir import RECORD
from netopt_cli.tables import COLUMNS, header, markdown
from netopt_cli.trackers import Trackers

if TYPE_CHECKING:
    import keras

_TOLD_AT_THE_END = (".yaml", ".csv", ".md", ".json", ".svg")


class Record:
    """The record of one run."""

    def __init__(
        self,
        folder: Path,
        *,
        config_yaml: str,
        command: list[str],
        seed: int,
        facts: Mapping[str, Any],
        trackers: Trackers,
        group: str | None = None,
    ) -> None:
        """Opens the run directory, which exists and is empty, or holds an unfinished run, whose
        rows are kept.

        Args:
            config_yaml: The resolved config.
            command: The words that started the run.
            facts: What else is known from the start: `config`, `dataset`, `pipeline`.
            trackers: Who is told of what comes, as soon as it is written.
            group: The name of the seeds or the sweep that the run is one of.

        Raises:
            TrackingError: A tracker cannot begin; nothing has been written then.
        """
        self.folder = folder
        self._started = time.monotonic()
        self._seconds_before = 0.0
        self.changes: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._exports: list[dict[str, Any]] = []
        self._exits: list[dict[str, Any]] = []
        self._robustness: list[dict[str, Any]] = []
        self._responses: list[dict[str, Any]] = []
        self._history: list[Epoch] = []
        self._history_before: list[dict[str, str]] = []
        self._trackers = trackers
        self._facts: dict[str, Any] = {
            "status": "running",
            "error": None,
            "command": command,
            "seed": seed,
            "group": group,
            "started": timestamp(),
            "environment": describe_environment(),
            "git": describe_git(Path.cwd()),
            "stages": {},
            **facts,
        }
        before = json.loads((folder / RECORD).read_text()) if (folder / RECORD).exists() else {}
        if before:
            self._take_up(before)
        trackers.begin(self._as_tracked(), before.get("tracking"))
        self._facts["tracking"] = trackers.facts
        write_text(folder / "config.yaml", config_yaml)
        self._write_json()

    def _take_up(self, facts: dict[str, Any]) -> None:
        """Goes on with a record. What was written of a row before the row itself goes: it is made
        anew. The history comes again from the trainings that are taken up; until then, the one of
        before says what the trackers know."""
        self._rows = facts["rows"]
        named = {(row["stage"], row["seed"]) for row in self._rows}
        self._exports = [each for each in facts["exports"] if _name(each) in named]
        self._exits = [each for each in facts.get("exits", []) if _name(each) in named]
        measured = {(row["stage"], row["role"]) for row in self._rows}
        self._robustness = [
            each
            for each in facts.get("robustness", [])
            if (each["stage"], each["role"]) in measured
        ]
        self._seconds_before = facts.get("wall_seconds", 0.0)
        self._facts |= {
            name: facts[name] for name in ("started", "stages", "command", "group") if name in facts
        }
        self._history_before = _read_csv(self.folder / "history.csv")
        for what in ("environment", "git"):
            self.changes += _changes(facts.get(what), self._facts[what], what)
        self._facts["resumed"] = [*facts.get("resumed", []), timestamp()]

    def row_of(self, stage: str, role: str) -> dict[str, Any] | None:
        """The row of a stage, if it has been measured."""
        wanted = (stage, role)
        return next((r for r in self._rows if (r["stage"], r["role"]) == wanted), None)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self._rows

    @property
    def responses(self) -> list[dict[str, Any]]:
        return self._responses

    def fact(self, name: str, value: Any) -> None:
        """Keeps a fact of the whole run in record.json."""
        self._facts[name] = value
        self._write_json()

    def stage_fact(self, label: str, name: str, value: Any) -> None:
        """Keeps a fact of one stage in record.json."""
        self._facts["stages"].setdefault(label, {})[name] = value
        self._write_json()

    def stage_note(self, label: str, message: str) -> None:
        notes = self._facts["stages"].setdefault(label, {}).setdefault("notes", [])
        if message not in notes:  # as they are when a stage is gone through again
            notes.append(message)

    def stage_folder(self, label: str) -> Path:
        folder = self.folder / label
        with storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def save_model(self, label: str, model: keras.Model, name: str = "model.keras") -> Path:
        path = self.stage_folder(label) / name
        write_atomically(path, model.save)
        return path

    def save_file(self, label: str, content: bytes, name: str = "model.tflite") -> Path:
        path = self.stage_folder(label) / name
        write_bytes(path, content)
        return path

    def save_export(self, label: str, name: str, write: Callable[[Path], object]) -> Path:
        """Calls `write` to make a file, or to fill a directory when `name` has no suffix."""
        path = self.stage_folder(label) / name
        if path.suffix:
            write_atomically(path, write)
        else:
            write_folder_atomically(path, write)
        return path

    def add_epoch(self, epoch: Epoch) -> None:
        """Adds a row to history.csv, and tells the trackers if they do not know it."""
        self._history.append(epoch)
        known = next((row for row in self._history_before if _is_of(row, epoch)), None)
        if known is not None:
            self._history_before.remove(known)
        rows = [{k: _rounded(v) for k, v in e.columns().items()} for e in self._history]
        rows += self._history_before
        # Trainings on other data may have another metric than those before them.
        columns = list(dict.fromkeys(name for row in rows for name in row if name))
        write_text(self.folder / "history.csv", _csv(columns, rows))
        if known is None:
            self._trackers.epoch(epoch)

    def add_row(self, row: dict[str, Any]) -> None:
        """Adds a row to the metrics tables."""
        self._rows.append(row)
        self._write_csv("metrics.csv", COLUMNS, self._rows)
        write_text(self.folder / "metrics.md", markdown(self._rows))
        self._write_json()
        self._trackers.row(row)

    def add_exports(self, rows: list[dict[str, Any]]) -> None:
        """Adds the files of one stage to the tables of exports."""
        self._exports += export_table.with_fastest(rows)
        self._write_csv("exports.csv", export_table.COLUMNS, self._exports)
        write_text(self.folder / "exports.md", export_table.markdown(self._exports))
        self._write_json()

    def add_exits(self, rows: list[dict[str, Any]]) -> None:
        """Adds the ways through one network with early exits to the tables of exits."""
        self._exits += rows
        self._facts["exits"] = self._exits
        self._write_csv("exits.csv", exit_table.COLUMNS, self._exits)
        write_text(self.folder / "exits.md", exit_table.markdown(self._exits))
        self._write_json()

    def add_robustness(self, row: dict[str, Any]) -> None:
        """Adds the robustness of one network to its tables."""
        self._robustness.append(row)
        self._facts["robustness"] = self._robustness
        self._write_csv("robustness.csv", robustness_table.COLUMNS, self._robustness)
        write_text(self.folder / "robustness.md", robustness_table.markdown(self._robustness))
        self._write_json()

    def add_responses(self, rows: list[dict[str, Any]], uncut: dict[str, Any]) -> None:
        """Adds what one layer answered to the tables of sensitivity.

        Args:
            uncut: What the network scored as it is, see `response_table.markdown`.
        """
        self._responses += rows
        self._facts["responses"] = self._responses
        self._write_csv("sensitivity.csv", response_table.COLUMNS, self._responses)
        write_text(self.folder / "sensitivity.md", response_table.markdown(self._responses, uncut))
        self._write_json()

    def save_figure(self, name: str, content: bytes) -> None:
        write_bytes(self.folder / name, content)

    def finish(self, status: str, error: str | None = None) -> None:
        """Closes the record as `completed`, `failed` or `interrupted`."""
        self._facts |= {
            "status": status,
            "error": error,
            "ended": timestamp(),
            "wall_seconds": round(self._seconds_before + time.monotonic() - self._started, 3),
        }
        self._write_json()
        self._trackers.end(status, *self._files())
        self._write_json()  # a tracker may have failed in the end

    def _as_tracked(self) -> TrackedRun:
        group, git, dataset = self._facts["group"], self._facts["git"], self._facts["dataset"]
        tags = {
            "command": shlex.join(self._facts["command"]),
            "seed": str(self._facts["seed"]),
            "git_commit": git["commit"] if git else None,
            "dataset": dataset["name"],
            "dataset_sha256": dataset["fingerprint_sha256"],
        }
        return TrackedRun(
            folder=self.folder,
            name=f"{group}/{self.folder.name}" if group else self.folder.name,
            group=group,
            config=self._facts["config"],
            tags={name: tag for name, tag in tags.items() if tag},
            epochs=len(self._history_before),
        )

    def _files(self) -> tuple[list[Path], list[Path]]:
        """The small files of the run, and those in the folders of its stages."""
        tables = [path for path in self.folder.iterdir() if path.suffix in _TOLD_AT_THE_END]
        models = [path for path in self.folder.glob("[0-9]*-*/**/*") if path.is_file()]
        return sorted(tables), sorted(models)

    def _write_csv(
        self, name: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Writes a table, with the metrics that its rows have."""
        rounded = [{k: _rounded(v) for k, v in row.items()} for row in rows]
        write_text(self.folder / name, _csv(header(rounded, columns), rounded))

    def _write_json(self) -> None:
        content = self._facts | {"rows": self._rows, "exports": self._exports}
        write_json(self.folder / RECORD, content)


def _changes(before: Any, now: Any, what: str) -> list[str]:
    """What is not as it was, of the packages and the source: a sentence each."""
    if before is None or now is None:
        return []
    if what == "git":
        parts = {part: (before[part], now[part]) for part in ("commit", "diff_sha256")}
        is_same = all(old == new for old, new in parts.values())
        return [] if is_same else ["the source in the current directory is another one than before"]
    old, new = before["packages"], now["packages"]
    return [
        f"{name} was {old[name]} and is {new[name]}"
        for name in new
        if old.get(name, new[name]) != new[name]
    ]


def _name(row: dict[str, Any]) -> tuple[str, int]:
    return row["stage"], row["seed"]


def _is_of(row: Mapping[str, str], epoch: Epoch) -> bool:
    return row.get("stage") == epoch.stage and row.get("epoch") == str(epoch.epoch)


def _read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none where there is no table that can be read."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (FileNotFoundError, UnicodeDecodeError, csv.Error):
        return []


def _csv(header: list[str], rows: list[dict[str, Any]]) -> str:
    # As objects: a column of integers with a gap would become one of floats.
    table = pd.DataFrame(rows, columns=header, dtype=object)
    return table.to_csv(index=False, lineterminator="\n")


def _rounded(value: Any) -> Any:
    """Seven significant digits: all that a float32 holds."""
    return float(f"{value:.7g}") if isinstance(value, float) else value
