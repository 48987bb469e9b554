"""`netopt sensitivity`: what each layer answers to being pruned, thinned or quantized alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netopt_cli import jobs
from netopt_cli.arguments import Parser, add_job_options
from netopt_cli.errors import ConfigError, did_you_mean
from netopt_cli.jobs import Job, Rows

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import RenderableType

    from netopt_cli.graph.response import Technique

HELP = "Scan what each layer answers to pruning, lower rank and fewer bits."

_DETAILS = """\
Trains the baseline as `netopt train` does with the same overrides, then cuts one layer alone at a
time to each of some levels and scores the network on the validation split, without training again.
  netopt sensitivity arch=cnn data=digits
  netopt sensitivity arch=resnet data=fashion_mnist --of prune,bits --samples 2000
  netopt sensitivity data=digits --model runs/latest/0-baseline/model.keras

  prune       share of the weights of a kernel that are zero
  structured  share of the channels of a group that are zero, with all that belongs to them
  rank        share of the full rank of a kernel that is left
  bits        bits a weight

The directory, the last line on stdout, has sensitivity.csv, .md and .svg. The stages themselves can
spread what they take by a scan of their own: opt.prune.scope=sensitivity,
opt.lowrank.spread=sensitivity.
Exit codes: 0 ok, 1 run failed, 2 wrong input, 130 interrupted.
"""
_TECHNIQUES: "tuple[Technique, ...]" = ("prune", "structured", "rank", "bits")


def parser() -> Parser:
    found = Parser("sensitivity", HELP, _DETAILS)
    add_job_options(found)
    add = found.add_argument
    add(
        "--model",
        metavar="FILE",
        help="a .keras file to scan as it is, short for arch=keras_model arch.path=FILE; give the "
        "data that it was trained on",
    )
    add(
        "--of",
        default=",".join(_TECHNIQUES),
        metavar="LIST",
        help=f"which techniques ({','.join(_TECHNIQUES)})",
    )
    add("--samples", type=int, metavar="N", help="validation samples to look at (all)")
    return found


def main(argv: Sequence[str]) -> int:
    arguments = parser().read(argv)
    work = Scan(_techniques(arguments.of), arguments.samples)
    if arguments.samples is not None and arguments.samples < 1:
        raise ConfigError(f"--samples must be at least 1. Received: {arguments.samples}")
    overrides = arguments.overrides
    if arguments.model is not None:
        overrides = [*overrides, *_of_file(Path(arguments.model), overrides)]
    job = Job(
        work=work,
        allow=tuple(arguments.allow),
        command=("netopt", "sensitivity", *argv),
        json_output=arguments.json,
        quiet=arguments.quiet,
        is_cell=False,
    )
    with jobs.composing(arguments) as composing:
        return jobs.run(composing, composing.normalise(overrides), job, _named)


@dataclass(frozen=True)
class Scan:
    """The work of a scan: see `jobs.Work`.

    Attributes:
        techniques: What to try.
        samples: Validation samples to look at; None for all.
    """

    techniques: "tuple[Technique, ...]"
    samples: int | None

    def run(self, config: "DictConfig", directory: Path, **given: Any) -> Rows:
        if config.get("seeds") is not None:
            raise ConfigError(
                f"a scan is of one network: give it one seed. Received: seeds={config.seeds}"
            )
        from netopt_cli import sensitivity

        return sensitivity.run(
            config, directory, techniques=self.techniques, samples=self.samples, **given
        )

    def recorded(self, directory: Path) -> Rows:
        from netopt_cli import run_dir

        return run_dir.recorded_responses(directory)

    def details(self, directory: Path) -> dict[str, Any]:
        return {}

    def tables(self, rows: Rows, directory: Path, width: int) -> "Iterator[RenderableType]":
        from netopt_cli import response_table

        yield from response_table.terminal(rows, width)


def _techniques(words: str) -> "tuple[Technique, ...]":
    chosen = words.replace(" ", "").split(",")
    for word in chosen:
        if word not in _TECHNIQUES:
            raise ConfigError(f"--of has no technique '{word}'.{did_you_mean(word, _TECHNIQUES)}")
    return tuple(technique for technique in _TECHNIQUES if technique in chosen)


def _of_file(path: Path, overrides: Sequence[str]) -> list[str]:
    for line in overrides:
        if line.lstrip("+").startswith(("arch=", "arch.path=")):
            raise ConfigError(f"--model brings its own arch: leave {line} out")
    return ["arch=keras_model", f"arch.path={jobs.quoted(path)}"]


def _named(name: str) -> str:
    """The name of the directory: there are no stages to stand in it."""
    return name.removesuffix("-none") + "-sensitivity"
