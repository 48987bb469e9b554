"""`netopt train`: compose, check, and run each job through Hydra's launcher."""

import json
import math
import numbers
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netopt_cli.arguments import Parser, add_config_dir
from netopt_cli.errors import EXIT_INTERRUPTED, EXIT_OK, ConfigError, InputError

if TYPE_CHECKING:
    import argparse

    from omegaconf import DictConfig

    from netopt_cli.config import Composer

HELP = "Train the baseline, apply the optimization stages, measure and record."

_DETAILS = """\
Overrides are group=choice and key=value; +arch=cnn and arch=cnn mean the same.
  netopt train +arch=cnn +opt=distill
  netopt train arch=resnet opt=[prune,quantize] opt.prune.sparsity=0.9 train.epochs=20
  netopt train opt=distill opt.distill.teacher=vgg        (or =path/to/teacher.keras)
  netopt train -m arch=mlp,lenet5 'opt=none,[prune,quantize]' seed=0,1,2
`netopt list` shows the choices, `netopt show GROUP/NAME` the keys of one.

The run is in runs/<date>-<time>-<arch>-<stages>, a sweep in runs/<date>-<time>-sweep with a run for
each cell; hydra.run.dir=DIR and hydra.sweep.dir=DIR choose another place. The directory is the last
line on stdout.
Exit codes: 0 ok, 1 run failed, 2 wrong input, 130 interrupted; of a sweep the worst.
"""


def parser() -> Parser:
    found = Parser("train", HELP, _DETAILS)
    add = found.add_argument
    add("overrides", nargs="*", metavar="OVERRIDE", help="group=choice or key=value")
    add("--multirun", "-m", action="store_true", help="run every combination of the swept values")
    add("--json", action="store_true", help="print one line of JSON a run instead of the table")
    add("--quiet", "-q", action="store_true", help="no progress on stderr")
    add(
        "--allow",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="let _target_ name this package of yours, which may be in the current directory; "
        "repeat it for several",
    )
    add_config_dir(found)
    add("--config-name", "-cn", default="run", metavar="NAME", help="the primary config (run)")
    add("--cfg", "-c", choices=["job", "hydra", "all"], help="show the config instead of running")
    add("--package", "-p", metavar="KEY", help="with --cfg: this part of it")
    add("--resolve", action="store_true", help="with --cfg: with interpolations resolved")
    add(
        "--info",
        "-i",
        nargs="?",
        const="all",
        choices=["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"],
        help="show how Hydra composed the config instead of running",
    )
    add("--hydra-help", action="store_true", help="show Hydra's own help")
    return found


def main(argv: Sequence[str]) -> int:
    arguments = parser().read(argv)
    shown = [arguments.cfg, arguments.info, arguments.multirun or None]
    if sum(choice is not None for choice in shown) > 1:
        raise ConfigError("--cfg, --info and --multirun exclude one another")
    if arguments.cfg is None and (arguments.resolve or arguments.package):
        raise ConfigError("--resolve and --package go with --cfg")
    with _composing(arguments) as composing:
        if arguments.hydra_help:
            composing.hydra.hydra_help(arguments.config_name, parser(), arguments)
            return EXIT_OK
        multirun = arguments.multirun or "hydra.mode=MULTIRUN" in arguments.overrides
        overrides = composing.normalise(arguments.overrides, multirun=multirun)
        if arguments.cfg or arguments.info:
            _show(composing, arguments, overrides)
            return EXIT_OK
        job = Job(
            allow=tuple(arguments.allow),
            command=("netopt", "train", *argv),
            json_output=arguments.json,
            quiet=arguments.quiet,
            is_cell=multirun,
        )
        return (_sweep if multirun else _run)(composing, overrides, job)


def reserve(argv: Sequence[str]) -> Path:
    """Checks the command line of a run and makes its directory, for others that run it.

    Raises:
        ConfigError: As `netopt train` would.
        StorageError: When the directory cannot be made.
    """
    arguments = parser().read(argv)
    with _composing(arguments) as composing:
        overrides = composing.normalise(arguments.overrides)
        return _run_directory(composing, overrides, tuple(arguments.allow))


@dataclass(frozen=True)
class Outcome:
    """What became of a job; a launcher may carry it from another process."""

    exit_code: int


@dataclass(frozen=True)
class Job:
    """What Hydra calls for each job: runs the experiment, says where it is, and never raises.

    Attributes:
        allow: Packages that a `_target_` may name besides netopt's and Keras'.
        command: The command line, for the record.
        json_output: Whether stdout gets a line of JSON instead of the table.
        quiet: Whether progress is left out.
        is_cell: Whether the job is a cell of a sweep, whose directory is not the last line.
        latest: Link that is to lead to the newest run, none where the user chose the place.
    """

    allow: tuple[str, ...]
    command: tuple[str, ...]
    json_output: bool
    quiet: bool
    is_cell: bool
    latest: Path | None = None

    def __call__(self, config: "DictConfig") -> Outcome:
        from hydra.core.hydra_config import HydraConfig

        from netopt_cli import failures, run_dir

        directory = Path(HydraConfig.get().runtime.output_dir)
        where = directory.name if self.is_cell else ""
        try:
            rows = self._experiment(config, directory)
        except (Exception, KeyboardInterrupt) as error:
            may_discard = isinstance(error, InputError | KeyboardInterrupt)
            if may_discard and run_dir.discard_unstarted(directory):
                code = failures.report(error, where=where)
                if isinstance(error, KeyboardInterrupt) and self.is_cell:
                    raise
                return Outcome(code)
            code = failures.report(error, log=directory / run_dir.LOG, where=where)
            self._say(directory, run_dir.recorded_rows(directory), code)
            if isinstance(error, KeyboardInterrupt) and self.is_cell:
                raise
            return Outcome(code)
        self._say(directory, rows, EXIT_OK)
        return Outcome(EXIT_OK)

    def _experiment(self, config: "DictConfig", directory: Path) -> list[dict[str, Any]]:
        from netopt_cli import config as configuration
        from netopt_cli import run_dir
        from netopt_cli.terminal import consoles, native_output_to, quiet_tensorflow

        run_dir.refuse_finished(directory)
        configuration.check_job(config, self.allow)
        quiet_tensorflow()
        with native_output_to(directory / run_dir.LOG):
            from netopt_cli import experiment

            return experiment.run(
                config,
                directory,
                allow=self.allow,
                command=list(self.command),
                messages=consoles().err,
                quiet=self.quiet,
                latest=self.latest,
            ).rows

    def _say(self, directory: Path, rows: list[dict[str, Any]], code: int) -> None:
        from hydra.core.hydra_config import HydraConfig

        from netopt_cli import export_table, run_dir, tables
        from netopt_cli.terminal import consoles

        exports = run_dir.recorded_exports(directory)
        shown = _shown(directory, Path(HydraConfig.get().runtime.cwd))
        if self.json_output:
            status = {EXIT_OK: "completed", EXIT_INTERRUPTED: "interrupted"}.get(code, "failed")
            result = {"run_dir": shown, "rows": rows, "status": status}
            if exports:
                result["exports"] = exports
            print(json.dumps(_json(result), allow_nan=False), flush=True)
        elif rows:
            out = consoles().out
            out.print(tables.terminal(rows, directory.name, out.width))
            if exports:
                out.print(export_table.terminal(exports, out.width))
            for line in export_table.fastest_lines(exports):
                out.print(line)
        if not self.is_cell:
            print(shown, flush=True)


@contextmanager
def _composing(arguments: "argparse.Namespace") -> Iterator["Composer"]:
    from netopt_cli.config import composer

    if arguments.allow:
        # At the end, so that no file of the current directory stands for an installed package.
        sys.path.append(str(Path.cwd()))
    with composer(config_dir=arguments.config_dir, config_name=arguments.config_name) as composing:
        yield composing


def _run(composing: "Composer", overrides: list[str], job: Job) -> int:
    directory = _run_directory(composing, overrides, job.allow)
    result = composing.hydra.run(
        composing.config_name,
        replace(job, latest=latest_link("hydra.run.dir", overrides, directory)),
        [*overrides, f"hydra.run.dir={_quoted(directory)}"],
        with_log_configuration=False,
    )
    code: int = result.return_value.exit_code
    return code


def _run_directory(composing: "Composer", overrides: list[str], allow: tuple[str, ...]) -> Path:
    config = composing.compose(overrides)
    composing.check(config, allow)
    return _directory(config, "hydra.run.dir", overrides)


def _sweep(composing: "Composer", overrides: list[str], job: Job) -> int:
    from netopt_cli.config import check_hydra, readable_errors

    config = composing.compose(overrides, multirun=True)
    in_files = composing.sweep_of_files(config, overrides)
    if in_files:
        # Hydra would sweep over them as they are written; they are spelled like the others first.
        overrides = composing.normalise([*in_files, *overrides], multirun=True)
        overrides.append("hydra.sweeper.params=null")
    for cell in composing.cells(overrides):
        composing.check(composing.compose(cell), job.allow)
    check_hydra(config, job.allow)
    directory = _directory(config, "hydra.sweep.dir", overrides)
    try:
        with readable_errors():
            returned = composing.hydra.multirun(
                composing.config_name,
                replace(job, latest=latest_link("hydra.sweep.dir", overrides, directory)),
                [*overrides, "hydra.mode=MULTIRUN", f"hydra.sweep.dir={_quoted(directory)}"],
                with_log_configuration=False,
            )
    finally:
        print(_shown(directory, Path.cwd()), flush=True)
    codes = [result.return_value.exit_code for batch in returned or [] for result in batch]
    return max(codes, default=EXIT_OK)


def _show(composing: "Composer", arguments: "argparse.Namespace", overrides: list[str]) -> None:
    from omegaconf import OmegaConf

    from netopt_cli.config import readable_errors

    with readable_errors():
        if arguments.info:
            composing.hydra.show_info(arguments.info, composing.config_name, overrides)
            return
        if arguments.package:
            config = composing.compose(overrides)
            if OmegaConf.select(config, arguments.package, throw_on_missing=False) is None:
                raise ConfigError(f"--package: the config has no '{arguments.package}'")
        composing.hydra.show_cfg(
            composing.config_name, overrides, arguments.cfg, arguments.package, arguments.resolve
        )


def _directory(config: "DictConfig", key: str, overrides: list[str]) -> Path:
    """Makes the directory of a run or sweep: the user's own, or a new one nobody else has."""
    from omegaconf import OmegaConf

    from netopt_cli.run_dir import reserve_run_dir, use_run_dir

    path = Path(str(OmegaConf.select(config, key)))
    if _is_given(key, overrides):
        return use_run_dir(path)
    return reserve_run_dir(path.parent, path.name)


def latest_link(key: str, overrides: Sequence[str], directory: Path) -> Path | None:
    """The link beside `directory` that leads to the newest run; none in a place of the user's."""
    from netopt_cli.run_dir import LATEST

    return None if _is_given(key, overrides) else directory.absolute().parent / LATEST


def _is_given(key: str, overrides: Sequence[str]) -> bool:
    return any(line.lstrip("+").startswith(f"{key}=") for line in overrides)


def _quoted(path: Path) -> str:
    """A value in Hydra's grammar that stands for any path."""
    return "'" + str(path).replace("'", "\\'") + "'"


def _shown(directory: Path, start: Path) -> str:
    """A directory as the user would write it: relative when it is below where netopt started."""
    absolute = start / directory
    return os.fspath(absolute.relative_to(start) if absolute.is_relative_to(start) else absolute)


def _json(value: Any) -> Any:
    """Plain JSON: scalars of NumPy become numbers, NaN and infinity null, the rest its text."""
    if isinstance(value, dict):
        return {str(key): _json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json(inner) for inner in value]
    if isinstance(value, bool | None):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    return str(value)
