"""Runs as seeds of one: what `compare` and `check` take figures from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from netopt_cli.columns import number
from netopt_cli.errors import InputError, RecordError
from netopt_cli.metrics import metric_of
from netopt_cli.records import Row, StoredRun, expand, last_row
from netopt_cli.tables import row_name

_OF_A_SEED = ("seed", "seeds")


@dataclass(frozen=True)
class Skipped:
    """A run whose figures are not used, and why."""

    name: str
    reason: str


class Group:
    """Completed runs that differ in their seed alone.

    Attributes:
        name: Where it is, as short as the folders of all groups allow.
        runs: By seed.
    """

    def __init__(self, name: str, runs: Iterable[StoredRun]) -> None:
        self.name = name
        self.runs = {run.seeds[0]: run for run in sorted(runs, key=lambda run: run.seeds[0])}
        self._rows = {
            seed: {row_name(row): row for row in run.rows} for seed, run in self.runs.items()
        }

    @cached_property
    def metric(self) -> str:
        """The name of the metric that counts.

        Raises:
            RecordError: See `metric_of`.
        """
        try:
            return metric_of(row for run in self.runs.values() for row in run.rows)
        except RecordError as error:
            raise RecordError(f"{self.name}: {error}") from error

    @property
    def protocol(self) -> str:
        """How the metric is taken, where there are several ways; figures of two are never mixed."""
        return str(self.any.dataset.get("protocol") or "")

    @property
    def any(self) -> StoredRun:
        """One of the runs, for what they have in common."""
        return next(iter(self.runs.values()))

    @property
    def rows(self) -> dict[str, Row]:
        """The rows that every run has, by name, as one run has them."""
        first, *others = self._rows.values()
        return {name: row for name, row in first.items() if all(name in rows for rows in others)}

    @property
    def last(self) -> str | None:
        """The name of the row of the last stage."""
        row = last_row(list(self.rows.values()))
        return None if row is None else row_name(row)

    def values(self, row: str, column: str) -> dict[int, float]:
        """The figures of a row by seed; none of seeds whose cell is empty."""
        found = {seed: number(rows[row].get(column)) for seed, rows in self._rows.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    @property
    def config(self) -> dict[str, Any]:
        return {key: value for key, value in self.any.config.items() if key not in _OF_A_SEED}


class Judged(Protocol):
    """What has figures: of a metric, taken in a way."""

    @property
    def metric(self) -> str: ...
    @property
    def protocol(self) -> str: ...


def require_comparable(one: Judged, its_name: str, other: Judged, other_name: str) -> None:
    """Refuses figures of two metrics, or of one that was taken in two ways.

    Raises:
        InputError: What of both differs.
    """
    if one.metric != other.metric:
        raise InputError(
            "figures of different metrics are not compared. "
            f"Received: {its_name} by {one.metric}, {other_name} by {other.metric}"
        )
    if one.protocol != other.protocol:
        raise InputError(
            "figures of different evaluation protocols are not compared. "
            f"Received: {its_name} by '{one.protocol or 'default'}', "
            f"{other_name} by '{other.protocol or 'default'}'"
        )


def gather(words: Iterable[str]) -> tuple[list[Group], list[Skipped]]:
    """The groups that words of a command line lead to, in their order, and what is left out.

    The runs of a parent of seeds are a group. Other runs are one when they agree in everything but
    the seed: config, data and version of the code; of two with the same seed, each has a group.

    Raises:
        RecordError: A word leads to no run, or a record cannot be read.
    """
    folders = expand(words)
    home = Path(os.path.commonpath([folder.absolute().parent for folder in folders]))
    found: list[_Found] = []
    skipped: list[Skipped] = []
    for folder in folders:
        run = StoredRun(folder)
        name = folder.absolute().relative_to(home).as_posix()
        usable, left_out = sifted(run, name)
        skipped += left_out
        if not usable:
            continue
        identity = "" if run.is_seeds else _identity(run)
        seeds_of = next((each for each in found if each.takes(identity, usable)), None)
        if seeds_of is None:
            found.append(_Found(name, identity, usable))
        else:
            seeds_of.runs.update(usable)
    return [Group(each.title, each.runs.values()) for each in found], skipped


@dataclass(frozen=True)
class _Found:
    """A group in the making; `identity` is empty where no other run can join."""

    name: str
    identity: str
    runs: dict[int, StoredRun]

    def takes(self, identity: str, runs: dict[int, StoredRun]) -> bool:
        return bool(identity) and identity == self.identity and not runs.keys() & self.runs.keys()

    @property
    def title(self) -> str:
        joined = len(self.runs) - 1 if self.identity else 0
        return f"{self.name} (+{joined})" if joined else self.name


def sifted(run: StoredRun, name: str) -> tuple[dict[int, StoredRun], list[Skipped]]:
    """The completed runs of a run directory by seed, and what is left out."""
    usable, skipped = {}, []
    members = {member.folder.name: member for member in run.members()}
    for key, member in members.items():
        reason = _unusable(member)
        if reason:
            skipped.append(Skipped(f"{name}/{key}" if run.is_seeds else name, reason))
        else:
            usable[member.seeds[0]] = member
    failed = (run.get("failed", dict) or {}) if run.is_seeds else {}
    skipped += [
        Skipped(f"{name}/{key}", f"failed: {reason}")
        for key, reason in failed.items()
        if key not in members
    ]
    if run.is_seeds and not skipped and (run.status != "completed" or not usable):
        skipped.append(Skipped(name, f"{run.status} after {len(usable)} of its seeds"))
    return usable, skipped


def _unusable(run: StoredRun) -> str:
    if run.status != "completed":
        error = run.get("error", str)
        return f"{run.status}: {error}" if error else run.status
    if not run.seeds or last_row(run.rows) is None:
        return "no figures"
    return ""


def _identity(run: StoredRun) -> str:
    """What runs have in common that are seeds of one."""
    config = {key: value for key, value in run.config.items() if key not in _OF_A_SEED}
    git = run.get("git", dict) or {}
    return json.dumps([config, run.dataset, git.get("commit")], sort_keys=True)
