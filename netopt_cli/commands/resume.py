"""`netopt resume`: goes on with a run that was interrupted, killed or failed."""

import json
from collections.abc import Sequence
from pathlib import Path

from netopt_cli import jobs
from netopt_cli.arguments import Parser
from netopt_cli.errors import EXIT_OK, ConfigError, RecordError

HELP = "Go on with a run that was interrupted or failed."

_DETAILS = """\
  netopt resume runs/latest

The run ends with the numbers of one that was never interrupted: trainings go on from their last
checkpoint (`checkpoint_seconds`), what is measured is not measured again. The same command with the
same hydra.run.dir=DIR does so too.
"""


def parser() -> Parser:
    found = Parser("resume", HELP, _DETAILS)
    add = found.add_argument
    add("run", metavar="RUN", help="the directory of the run")
    add("--json", action="store_true", help="print one line of JSON instead of the table")
    add("--quiet", "-q", action="store_true", help="no progress on stderr")
    add(
        "--allow",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="let _target_ name this package of yours; repeat it for several",
    )
    return found


def main(argv: Sequence[str]) -> int:
    arguments = parser().read(argv)
    directory = Path(arguments.run).resolve()
    facts = _facts(directory)
    start = Path.cwd()
    if facts["status"] == "completed":
        print(jobs.shown(directory, start), flush=True)
        return EXIT_OK
    from omegaconf import DictConfig, OmegaConf

    from netopt_cli.commands.train import Training
    from netopt_cli.config import readable_errors
    from netopt_cli.run_dir import refuse_links_out

    refuse_links_out(directory)
    with readable_errors():
        config = OmegaConf.load(directory / "config.yaml")
    if not isinstance(config, DictConfig):
        raise RecordError(f"{directory / 'config.yaml'} does not hold the settings of a run")
    job = jobs.Job(
        work=Training(),
        allow=tuple(arguments.allow),
        command=("netopt", "resume", *argv),
        json_output=arguments.json,
        quiet=arguments.quiet,
        is_cell=False,
    )
    return job.do(config, directory, start).exit_code


def _facts(directory: Path) -> dict[str, object]:
    """The record of the run.

    Raises:
        RecordError: There is none, or it cannot be read.
        ConfigError: It is of something that does not go on.
    """
    path = directory / "record.json"
    try:
        facts = json.loads(path.read_text())
    except FileNotFoundError:
        raise RecordError(f"{directory} is not the directory of a run: no record.json") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error
    if not isinstance(facts, dict) or "status" not in facts:
        raise RecordError(f"{path} is not the record of a run")
    if facts.get("kind") == "sensitivity":
        raise ConfigError(f"{directory} is a scan of `netopt sensitivity`: start it anew")
    return facts
