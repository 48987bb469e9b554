"""`netopt resume`: goes on with a run that was interrupted, killed or failed."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from netopt_cli import jobs, run_dir
from netopt_cli.arguments import Parser, add_run_options
from netopt_cli.commands.train import Training
from netopt_cli.errors import EXIT_OK, ConfigError, RecordError, did_you_mean
from netopt_cli.records import StoredRun

if TYPE_CHECKING:
    from omegaconf import DictConfig

HELP = "Go on with a run that was interrupted or failed."

_DETAILS = """\
  netopt resume runs/latest

The run ends with the numbers of one that was never interrupted: trainings go on from their last
checkpoint (`checkpoint_seconds`), what is measured is not measured again. The same command with the
same hydra.run.dir=DIR does so too.
"""


def parser() -> Parser:
    found = Parser("resume", HELP, _DETAILS)
    found.add_argument("run", metavar="RUN", help="the directory of the run, or of its seeds")
    add_run_options(found)
    return found


def main(argv: Sequence[str]) -> int:
    arguments = parser().read(argv)
    named = Path(arguments.run)
    status = _status(named)
    directory, start = named.resolve(), Path.cwd()
    if status == "completed":
        print(f"{named} is complete: there is nothing to go on with", file=sys.stderr)
        print(jobs.shown(directory, start), flush=True)
        return EXIT_OK
    jobs.find_packages(arguments.allow)
    job = jobs.Job(
        work=Training(),
        allow=tuple(arguments.allow),
        command=("netopt", "resume", *argv),
        json_output=arguments.json,
        quiet=arguments.quiet,
        is_cell=False,
    )
    return job.do(_config(named, job.allow), directory, start).exit_code


def _status(folder: Path) -> str:
    """What became of the run so far.

    Raises:
        RecordError: There is no record, or it cannot be read.
        ConfigError: It is of something that does not go on.
    """
    if not run_dir.has_record(folder):
        beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
        names = [str(each) for each in beside if run_dir.has_record(each)]
        raise RecordError(
            f"{folder} is not the directory of a run: it has no {run_dir.RECORD}."
            f"{did_you_mean(str(folder), names)}"
        )
    run = StoredRun(folder)
    kind = run.get("kind", str)
    if kind not in (None, run_dir.SEEDS):
        raise ConfigError(f"{folder} is of `netopt {kind}`, which does not go on: start it anew")
    if run.status != "completed" and not run_dir.can_go_on(folder):
        raise RecordError(f"{folder / run_dir.RECORD} is not the record of a run")
    return run.status


def _config(folder: Path, allow: tuple[str, ...]) -> "DictConfig":
    """The config of the run, which may be a stranger's: read as carefully as any other file."""
    from omegaconf import DictConfig, OmegaConf

    from netopt_cli.config_errors import bounded, readable_errors
    from netopt_cli.hydra_seams import prepare_hydra
    from netopt_cli.job_check import check_job, is_of_workers
    from netopt_cli.yaml_limits import read_text

    run_dir.use_run_dir(folder)
    prepare_hydra()
    with bounded(), readable_errors():
        config = OmegaConf.create(read_text(folder / run_dir.CONFIG))
    if not isinstance(config, DictConfig):
        raise RecordError(f"{folder / run_dir.CONFIG} does not hold the settings of a run")
    check_job(config, allow)
    if is_of_workers(config.target):
        raise ConfigError(
            f"{folder} is a run of several workers, which do not go on: start it anew"
        )
    return config
