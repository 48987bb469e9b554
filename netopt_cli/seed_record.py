"""The record of several seeds: the parent directory of their runs.

    config.yaml  metrics.csv  metrics.md  record.json  run.log
    exports.csv  exports.md  exits.csv  exits.md  robustness.csv  robustness.md   where runs have
                                                them: the same over seeds
    seed-0/  seed-1/ …                          each a run directory

Written anew after each seed, every file whole or not at all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netopt_cli import exit_table, export_table, robustness_table, seed_tables
from netopt_cli.environment import describe_environment, describe_git, timestamp
from netopt_cli.errors import LostInputError
from netopt_cli.files import write_json, write_text
from netopt_cli.run_dir import RECORD, SEEDS
from netopt_cli.seed_rows import comparisons, summed_up
from netopt_cli.tables import Row, header

_FURTHER = {"exports": export_table, "exits": exit_table, "robustness": robustness_table}
"""What a run may have besides its metrics, by the key in its record."""


def folder_name(seed: int) -> str:
    return f"seed-{seed}"


class SeedRecord:
    """The record of several seeds. Writes nothing before the first of them has begun."""

    def __init__(
        self,
        folder: Path,
        seeds: Sequence[int],
        *,
        config: dict[str, Any],
        config_yaml: str,
        command: Sequence[str],
    ) -> None:
        """
        Args:
            folder: An existing directory without a record.
            config: What was composed, for all seeds.
            config_yaml: The same as text.
            command: The words that started the run.
        """
        self.folder = folder
        self.failed: dict[str, str] = {}
        self.rows: list[Row] = []
        self._seeds = tuple(seeds)
        self._config_yaml = config_yaml
        self._runs: dict[int, Sequence[Row]] = {}
        self._further: dict[str, dict[int, list[Row]]] = {name: {} for name in _FURTHER}
        self._began = time.monotonic()
        self._facts: dict[str, Any] = {
            "kind": SEEDS,
            "status": "running",
            "error": None,
            "command": list(command),
            "seeds": self._seeds,
            "runs": [],
            "failed": self.failed,
            "started": timestamp(),
            "environment": describe_environment(),
            "git": describe_git(Path.cwd()),
            "config": config,
        }

    @property
    def has_begun(self) -> bool:
        return bool(self._facts["runs"] or self.failed)

    def begin(self, seed: int) -> None:
        """Notes that the run of a seed has begun. What its record says of all seeds is kept.

        Raises:
            LostInputError: Its data are not those of the seeds before it.
        """
        run = folder_name(seed)
        of_run = self._record_of(seed)
        common = {name: of_run[name] for name in ("dataset", "pipeline")}
        is_first = "dataset" not in self._facts
        if is_first:
            self._facts |= common
        self._facts["runs"].append(run)
        self._write()
        key = "fingerprint_sha256"
        if not is_first and common["dataset"].get(key) != self._facts["dataset"].get(key):
            raise LostInputError(
                "the data are not those of the seeds before it: they have changed meanwhile"
            )

    def add(self, seed: int, rows: Sequence[Row]) -> None:
        """Adds the rows of a completed run to the tables."""
        self._runs[seed] = rows
        self.rows = summed_up(self._runs, self._seeds)
        of_run = self._record_of(seed)
        for name, by_seed in self._further.items():
            by_seed[seed] = of_run.get(name, [])
        self._write()

    def fail(self, seed: int, message: str) -> None:
        """Notes that a seed has failed, and why: the tables are made of the others."""
        self.failed[folder_name(seed)] = message
        self._write()

    def finish(self, status: str, error: str | None = None) -> None:
        """Closes the record as `completed`, `failed` or `interrupted`, if there is one."""
        if not self.has_begun:
            return
        self._facts |= {
            "status": status,
            "error": error,
            "ended": timestamp(),
            "wall_seconds": round(time.monotonic() - self._began, 3),
        }
        self._write()

    def _record_of(self, seed: int) -> dict[str, Any]:
        text = (self.folder / folder_name(seed) / RECORD).read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
        return found

    def _write_further(self) -> dict[str, list[Row]]:
        """Writes the other tables of the runs, and returns their rows over the seeds."""
        found = {}
        for name, table in _FURTHER.items():
            rows = summed_up(self._further[name], self._seeds, table.KEYS)
            if not rows:
                continue
            if table is export_table:
                rows = export_table.with_fastest(rows)
            columns = header(rows, table.COLUMNS)
            text = seed_tables.figures_csv(rows, table.KEYS, columns)
            write_text(self.folder / f"{name}.csv", text)
            note = seed_tables.spread_note(list(self._runs))
            write_text(self.folder / f"{name}.md", f"{table.markdown(rows)}\n{note}.\n")
            found[name] = rows
        return found

    def _write(self) -> None:
        tests = comparisons(self._runs)
        content = self._facts | {"rows": self.rows, "comparisons": tests} | self._write_further()
        write_text(self.folder / "config.yaml", self._config_yaml)
        if self.rows:
            write_text(self.folder / "metrics.csv", seed_tables.csv(self.rows, tests))
            write_text(self.folder / "metrics.md", seed_tables.markdown(content))
        write_json(self.folder / RECORD, content)
