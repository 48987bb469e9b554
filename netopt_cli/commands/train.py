"""`netopt train`: compose, check, and run each job through Hydra's launcher."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netopt_cli import jobs
from netopt_cli.arguments import Parser, add_job_options
from netopt_cli.errors import EXIT_OK, EXIT_WRONG_INPUT, ConfigError, InputError
from netopt_cli.jobs import Job, Rows

if TYPE_CHECKING:
    import argparse

    from omegaconf import DictConfig
    from rich.console import RenderableType

    from netopt_cli.config import Composer

HELP = "Train the baseline, apply the optimization stages, measure and record."

_DETAILS = """\
Overrides are group=choice and key=value; +arch=cnn and arch=cnn mean the same.
  netopt train +arch=cnn +opt=distill
  netopt train arch=resnet opt=[prune,quantize] opt.prune.sparsity=0.9 train.epochs=20
  netopt train opt=distill opt.distill.teacher=vgg        (or =path/to/teacher.keras)
  netopt train opt=prune seeds=5           (0 to 4; or seeds=[0,3,7]: means, intervals, verdicts)
  netopt train -m arch=mlp,lenet5 'opt=none,[prune,quantize]' seed=0,1,2
  netopt train opt=[prune,cluster,quantize] export=[litert,onnx] --dry-run
`netopt list` shows the choices, `netopt show GROUP/NAME` the keys of one.

The run is in runs/<date>-<time>-<arch>-<stages>, a sweep in runs/<date>-<time>-sweep with a run for
each cell; hydra.run.dir=DIR and hydra.sweep.dir=DIR choose another place. The directory is the last
line on stdout.
Exit codes: 0 ok, 1 run failed, 2 wrong input, 130 interrupted; of a sweep the worst.
"""


def parser() -> Parser:
    found = Parser("train", HELP, _DETAILS)
    add = found.add_argument
    add_job_options(found)
    add("--multirun", "-m", action="store_true", help="run every combination of the swept values")
    add(
        "--dry-run",
        action="store_true",
        help="train and write nothing: show the pipeline with the figures that can be predicted, "
        "and everything that cannot work",
    )
    add("--no-cache", action="store_true", help="train everything anew: the same as cache=false")
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
    if arguments.dry_run and (arguments.cfg or arguments.info):
        raise ConfigError("--dry-run goes without --cfg and --info")
    if arguments.cfg is None and (arguments.resolve or arguments.package):
        raise ConfigError("--resolve and --package go with --cfg")
    with jobs.composing(arguments) as composing:
        if arguments.hydra_help:
            composing.hydra.hydra_help(arguments.config_name, parser(), arguments)
            return EXIT_OK
        multirun = arguments.multirun or "hydra.mode=MULTIRUN" in arguments.overrides
        overrides = composing.normalise(arguments.overrides, multirun=multirun)
        if arguments.no_cache:
            overrides.append("cache=false")
        if arguments.cfg or arguments.info:
            _show(composing, arguments, overrides)
            return EXIT_OK
        if arguments.dry_run:
            return _dry_run(composing, arguments, overrides, multirun=multirun)
        job = Job(
            work=Training(),
            allow=tuple(arguments.allow),
            command=("netopt", "train", *argv),
            json_output=arguments.json,
            quiet=arguments.quiet,
            is_cell=multirun,
        )
        return (_sweep if multirun else jobs.run)(composing, overrides, job)


def reserve(argv: Sequence[str]) -> Path:
    """Checks the command line of a run and makes its directory, for others that run it.

    Raises:
        ConfigError: As `netopt train` would.
        StorageError: When the directory cannot be made.
    """
    arguments = parser().read(argv)
    if arguments.dry_run:
        raise ConfigError("--dry-run needs no workers: run it by `netopt train`")
    with jobs.composing(arguments) as composing:
        overrides = composing.normalise(arguments.overrides)
        return jobs.run_directory(composing, overrides, tuple(arguments.allow))


_OF_SEEDS = ("kind", "seeds", "failed", "comparisons")
"""What the line of JSON has of the record of several seeds."""


@dataclass(frozen=True)
class Training:
    """The work of a run: see `jobs.Work`."""

    def run(self, config: "DictConfig", directory: Path, **given: Any) -> Rows:
        from netopt_cli import experiment, seed_runs, seeds

        def alone(*place: Any, **given: Any) -> Rows:
            return experiment.run(*place, **given).rows

        if seeds.listed(config.get("seeds")):
            return seed_runs.run(config, directory, alone, **given)
        return alone(config, directory, **given)

    def recorded(self, directory: Path) -> Rows:
        from netopt_cli import run_dir

        return run_dir.recorded_rows(directory)

    def details(self, directory: Path) -> dict[str, Any]:
        from netopt_cli import run_dir

        of_seeds = run_dir.recorded_seeds(directory)
        facts = {name: of_seeds[name] for name in _OF_SEEDS} if of_seeds else {}
        found = {
            "exports": run_dir.recorded_exports(directory),
            "exits": run_dir.recorded_exits(directory),
            "robustness": run_dir.recorded_robustness(directory),
        }
        return facts | {name: rows for name, rows in found.items() if rows}

    def tables(self, rows: Rows, directory: Path, width: int) -> "Iterator[RenderableType]":
        from netopt_cli import (
            exit_table,
            export_table,
            robustness_table,
            run_dir,
            seed_tables,
            tables,
        )

        of_seeds = run_dir.recorded_seeds(directory)
        if of_seeds:
            yield from seed_tables.terminal(of_seeds, directory.name, width)
        else:
            yield tables.terminal(rows, directory.name, width)
        exports = run_dir.recorded_exports(directory)
        if exports:
            yield export_table.terminal(exports, width)
        yield from export_table.fastest_lines(exports)
        exits = run_dir.recorded_exits(directory)
        if exits:
            yield exit_table.terminal(exits, width)
        robustness = run_dir.recorded_robustness(directory)
        if robustness:
            yield robustness_table.terminal(robustness, width)


def _dry_run(
    composing: "Composer", arguments: "argparse.Namespace", overrides: list[str], *, multirun: bool
) -> int:
    """Shows what each run would do; the exit code is that of wrong input when one cannot work."""
    from netopt_cli import failures
    from netopt_cli.terminal import quiet_tensorflow

    cells = [overrides]
    if multirun:
        _, overrides = _with_files(composing, overrides)
        cells = composing.cells(overrides, values=True)
    quiet_tensorflow()
    codes = []
    for number, cell in enumerate(cells, start=1):
        where = f"cell {number} of {len(cells)}" if multirun else ""
        try:
            config = composing.compose(cell)
            composing.check(config, arguments.allow)
            codes.append(_forecast(config, arguments, cell, where))
        except InputError as error:
            codes.append(failures.report(error, where=where))
    return max(codes)


def _forecast(
    config: "DictConfig", arguments: "argparse.Namespace", overrides: list[str], where: str
) -> int:
    from omegaconf import open_dict
    from rich.markup import escape

    from netopt_cli import seeds
    from netopt_cli.terminal import consoles, native_output_to
    from netopt_cli.text_table import spans

    with open_dict(config):
        chosen = config.pop("hydra").runtime.choices
    wanted = seeds.listed(config.get("seeds"))
    which = f"seeds {spans(list(wanted))}" if wanted else f"seed {config.seed}"
    title = f"{chosen.arch} on {chosen.data}, {which}"
    if wanted:
        config = seeds.alone(config, wanted[0])
    if where:
        title = f"{where}: {' '.join(overrides)}"
    with native_output_to(Path(os.devnull)):
        from netopt_cli import dry_run

        report = dry_run.forecast(config, allow=tuple(arguments.allow))
    out, err = consoles()
    if arguments.json:
        result = {"overrides": overrides} | report.as_json()
        print(json.dumps(jobs.plain(result), allow_nan=False), flush=True)
    elif report.stages:
        out.print(dry_run.table(report, escape(title), out.width))
        for line in dry_run.lines(report):
            out.print(line, markup=False, soft_wrap=True)
    for problem in report.problems:
        place = f"{where}, {problem.where}" if where else problem.where
        err.print(f"incompatible in {place}: {problem.reason}", markup=False, soft_wrap=True)
    return EXIT_WRONG_INPUT if report.problems else EXIT_OK


def _with_files(composing: "Composer", overrides: list[str]) -> tuple["DictConfig", list[str]]:
    """The config of a sweep, and its overrides with those of `hydra.sweeper.params`."""
    config = composing.compose(overrides, multirun=True)
    in_files = composing.sweep_of_files(config, overrides)
    if in_files:
        # Hydra would sweep over them as they are written; they are spelled like the others first.
        overrides = composing.normalise([*in_files, *overrides], multirun=True)
        overrides.append("hydra.sweeper.params=null")
    return config, overrides


def _sweep(composing: "Composer", overrides: list[str], job: Job) -> int:
    from netopt_cli.config_errors import bounded, readable_errors
    from netopt_cli.hydra_seams import check_cell_place, check_hydra

    config, overrides = _with_files(composing, overrides)
    for cell in composing.cells(overrides):
        composing.check(composing.compose(cell), job.allow)
    with bounded(), readable_errors():
        check_hydra(config, job.allow)
    if not jobs.is_given("hydra.sweep.subdir", overrides):
        check_cell_place(config)
    directory = jobs.directory_of(config, "hydra.sweep.dir", overrides)
    try:
        with readable_errors():
            returned = composing.hydra.multirun(
                composing.config_name,
                replace(job, latest=jobs.latest_link("hydra.sweep.dir", overrides, directory)),
                [*overrides, "hydra.mode=MULTIRUN", f"hydra.sweep.dir={jobs.quoted(directory)}"],
                with_log_configuration=False,
            )
    finally:
        print(jobs.shown(directory, Path.cwd()), flush=True)
    codes = [result.return_value.exit_code for batch in returned or [] for result in batch]
    return max(codes, default=EXIT_OK)


def _show(composing: "Composer", arguments: "argparse.Namespace", overrides: list[str]) -> None:
    from omegaconf import OmegaConf

    from netopt_cli.config_errors import hydra_errors

    with hydra_errors():
        if arguments.info:
            composing.hydra.show_info(arguments.info, composing.config_name, overrides)
            return
        if arguments.package:
            config = composing.compose(overrides)
            shown = composing.hydra.get_sanitized_cfg(config, arguments.cfg)
            found = OmegaConf.select(shown, arguments.package, default=..., throw_on_missing=False)
            if found is ...:
                raise ConfigError(f"--package: the config has no '{arguments.package}'")
            if found is None:
                print("null")
                return
        composing.hydra.show_cfg(
            composing.config_name, overrides, arguments.cfg, arguments.package, arguments.resolve
        )
