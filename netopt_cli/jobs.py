"""A job of the command line: compose, make its directory, work in it, say what became of it."""

import json
import math
import numbers
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from netopt_cli.errors import EXIT_INTERRUPTED, EXIT_OK, InputError

if TYPE_CHECKING:
    import argparse

    from omegaconf import DictConfig
    from rich.console import RenderableType

    from netopt_cli.config import Composer

Rows = list[dict[str, Any]]


class Work(Protocol):
    """What a command does in the directory of a job. A launcher may carry it to another process."""

    def run(self, config: "DictConfig", directory: Path, **given: Any) -> Rows:
        """Does it and returns the rows of the result; `given` is as in `experiment.run`."""
        ...

    def recorded(self, directory: Path) -> Rows:
        """The rows that the record has so far: what is left of a job that failed."""
        ...

    def details(self, directory: Path) -> dict[str, Any]:
        """What the line of JSON has besides `run_dir`, `rows` and `status`."""
        ...

    def tables(self, rows: Rows, directory: Path, width: int) -> "Iterable[RenderableType]":
        """What is printed instead of JSON, at most `width` characters wide."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of a job; a launcher may carry it from another process."""

    exit_code: int


@dataclass(frozen=True)
class Job:
    """What Hydra calls for each job: does the work, says where it is, and never raises.

    Attributes:
        work: What is to be done.
        allow: Packages that a `_target_` may name besides netopt's and Keras'.
        command: The command line, for the record.
        json_output: Whether stdout gets a line of JSON instead of the table.
        quiet: Whether progress is left out.
        is_cell: Whether the job is a cell of a sweep, whose directory is not the last line.
        latest: Link that is to lead to the newest run, none where the user chose the place.
    """

    work: Work
    allow: tuple[str, ...]
    command: tuple[str, ...]
    json_output: bool
    quiet: bool
    is_cell: bool
    latest: Path | None = None

    def __call__(self, config: "DictConfig") -> Outcome:
        from hydra.core.hydra_config import HydraConfig

        runtime = HydraConfig.get().runtime
        return self.do(config, Path(runtime.output_dir), Path(runtime.cwd))

    def do(self, config: "DictConfig", directory: Path, start: Path) -> Outcome:
        """Works in a directory.

        Args:
            start: Where netopt was started, which what is printed is relative to.
        """
        from netopt_cli import failures, run_dir
        from netopt_cli.job_check import is_of_workers

        where = directory.name if self.is_cell else ""
        try:
            rows = self._work(config, directory)
        except (Exception, KeyboardInterrupt) as error:
            may_discard = isinstance(error, InputError | KeyboardInterrupt)
            if may_discard and run_dir.discard_unstarted(directory):
                code = failures.report(error, where=where)
                if isinstance(error, KeyboardInterrupt) and self.is_cell:
                    raise
                return Outcome(code)
            code = failures.report(error, log=directory / run_dir.LOG, where=where)
            if (
                not getattr(error, "recurs", False)
                and run_dir.can_go_on(directory)
                and not is_of_workers(config.target)
            ):
                place = shlex.quote(shown(directory, start))
                print(f"What is done is kept. Go on with: netopt resume {place}", file=sys.stderr)
            self._say(directory, self.work.recorded(directory), code, start)
            if isinstance(error, KeyboardInterrupt) and self.is_cell:
                raise
            return Outcome(code)
        self._say(directory, rows, EXIT_OK, start)
        return Outcome(EXIT_OK)

    def _work(self, config: "DictConfig", directory: Path) -> Rows:
        from omegaconf import OmegaConf

        from netopt_cli import job_check, run_dir
        from netopt_cli.terminal import consoles, native_output_to, quiet_tensorflow

        config_yaml = OmegaConf.to_yaml(config, resolve=True)
        if (
            self.is_cell
            and run_dir.is_complete(directory)
            and run_dir.is_of(directory, config_yaml)
        ):
            return self.work.recorded(directory)  # of a sweep that is started again
        run_dir.refuse_finished(directory)
        job_check.check_job(config, self.allow)
        quiet_tensorflow()
        with native_output_to(directory / run_dir.LOG):
            return self.work.run(
                config,
                directory,
                allow=self.allow,
                command=list(self.command),
                messages=consoles().err,
                quiet=self.quiet,
                started=partial(self._lead_here, directory),
                group=directory.parent.name if self.is_cell else None,
            )

    def _lead_here(self, directory: Path) -> None:
        from netopt_cli import run_dir

        if self.latest is not None:
            run_dir.point_latest(self.latest, directory)

    def _say(self, directory: Path, rows: Rows, code: int, start: Path) -> None:
        from netopt_cli.terminal import consoles

        place = shown(directory, start)
        if self.json_output:
            status = {EXIT_OK: "completed", EXIT_INTERRUPTED: "interrupted"}.get(code, "failed")
            result = {"run_dir": place, "rows": rows, "status": status}
            result |= self.work.details(directory)
            print(json.dumps(plain(result), allow_nan=False), flush=True)
        elif rows:
            out = consoles().out
            for table in self.work.tables(rows, directory, out.width):
                out.print(table)
        if not self.is_cell:
            print(place, flush=True)


@contextmanager
def composing(arguments: "argparse.Namespace") -> Iterator["Composer"]:
    """Sets Hydra up as the options of `arguments.add_job_options` say."""
    from netopt_cli.config import composer

    with composer(config_dir=arguments.config_dir, config_name=arguments.config_name) as hydra:
        # After Hydra has looked for its plug-ins, all of which it imports.
        find_packages(arguments.allow)
        yield hydra


def find_packages(allowed: Sequence[str]) -> None:
    """Lets packages that are allowed be in the current directory: at the end of the search path, so
    that no file there stands for an installed package."""
    if allowed:
        sys.path.append(str(Path.cwd()))


def run(
    composer: "Composer", overrides: list[str], job: Job, rename: Callable[[str], str] = str
) -> int:
    """Does one job and returns its exit code; `rename` is as in `run_directory`."""
    directory = run_directory(composer, overrides, job.allow, rename)
    result = composer.hydra.run(
        composer.config_name,
        replace(job, latest=latest_link("hydra.run.dir", overrides, directory)),
        [*overrides, f"hydra.run.dir={quoted(directory)}"],
        with_log_configuration=False,
    )
    code: int = result.return_value.exit_code
    return code


def run_directory(
    composer: "Composer",
    overrides: list[str],
    allow: tuple[str, ...],
    rename: Callable[[str], str] = str,
) -> Path:
    """Checks the config and makes the directory of a run.

    Args:
        rename: The name of the directory in the config -> the name that it gets, unless the user
            chooses the directory.

    Raises:
        ConfigError: For anything wrong with the config, or a directory that is taken.
        StorageError: When the directory cannot be made.
    """
    config = composer.compose(overrides)
    composer.check(config, allow)
    return directory_of(config, "hydra.run.dir", overrides, rename)


def directory_of(
    config: "DictConfig", key: str, overrides: list[str], rename: Callable[[str], str] = str
) -> Path:
    """Makes the directory of a run or sweep: the user's own, or a new one nobody else has."""
    from omegaconf import OmegaConf

    from netopt_cli.hydra_seams import check_own_place
    from netopt_cli.run_dir import reserve_run_dir, use_run_dir

    path = Path(str(OmegaConf.select(config, key)))
    if is_given(key, overrides):
        return use_run_dir(path)
    check_own_place(path, key)
    return reserve_run_dir(path.parent, rename(path.name))


def latest_link(key: str, overrides: Sequence[str], directory: Path) -> Path | None:
    """The link beside `directory` that leads to the newest run; none in a place of the user's."""
    from netopt_cli.run_dir import LATEST

    return None if is_given(key, overrides) else directory.absolute().parent / LATEST


def is_given(key: str, overrides: Sequence[str]) -> bool:
    """Whether the command line sets `key`, of Hydra's node."""
    return any(line.lstrip("+").startswith(f"{key}=") for line in overrides)


def quoted(path: Path) -> str:
    """A value in Hydra's grammar that stands for any path."""
    return "'" + str(path).replace("'", "\\'") + "'"


def shown(directory: Path, start: Path) -> str:
    """A directory as the user would write it: relative when it is below where netopt started."""
    absolute = start / directory
    return os.fspath(absolute.relative_to(start) if absolute.is_relative_to(start) else absolute)


def plain(value: Any) -> Any:
    """Plain JSON: scalars of NumPy become numbers, NaN and infinity null, the rest its text."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, bool | None):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    return str(value)
