"""`netopt compare A B …`: runs side by side, over seeds, with what differs in their configs."""

import json
import sys
from collections.abc import Sequence

from netopt_cli import comparison_tables as tables
from netopt_cli import text_table
from netopt_cli.arguments import Parser
from netopt_cli.columns import COSTS, resolve
from netopt_cli.comparing import Line, compare, config_differences
from netopt_cli.errors import EXIT_OK, InputError, RecordError
from netopt_cli.metrics import is_metric
from netopt_cli.run_groups import Group, Skipped, gather

HELP = "Compare runs: scores over seeds, cost, Pareto front, configs."
_EPILOG = """\
A run is a run directory, a parent of seeds, a sweep, or a glob. Runs that differ in their seed
alone are one line. Everything is compared with the first.

Examples:
  netopt compare runs/20261124-101500-cnn-prune runs/20261124-102200-cnn-quantize
  netopt compare runs/20261124-110000-sweep --cost latency_ms --format markdown
  netopt compare runs/latest --stage all
"""


def parser() -> Parser:
    found = Parser("compare", HELP, _EPILOG)
    add = found.add_argument
    add("runs", nargs="+", metavar="RUN", help="run directories, sweeps, globs")
    add("--cost", default="size_bytes", metavar="COLUMN",
        help="of the Pareto front: size_bytes, latency_ms, macs, params, packed_bytes")  # fmt: skip
    add("--stage", default="last", metavar="NAME", help="last (default), all, or a row's name")
    add("--format", choices=["table", "markdown", "csv", "json"], default="table",
        help="how to print (table)")  # fmt: skip
    return found


def main(argv: Sequence[str]) -> int:
    arguments = parser().read(argv)
    cost = resolve(arguments.cost, COSTS)
    if is_metric(cost):
        raise InputError(f"--cost must be a column other than {cost}, as size_bytes")
    groups, skipped = gather(arguments.runs)
    for each in skipped:
        print(f"left out: {each.name}: {each.reason}", file=sys.stderr)
    if not groups:
        raise RecordError("none of the runs is completed: there is nothing to compare")
    lines = compare(groups, arguments.stage, cost)
    compared = list(dict.fromkeys(line.group for line in lines))
    for group in groups:
        if group not in compared:
            print(f"left out: {group.name}: has no stage '{arguments.stage}'", file=sys.stderr)
    differing = config_differences(compared)
    if arguments.format == "csv":
        print(tables.as_csv(lines, cost), end="")
    elif arguments.format == "json":
        print(json.dumps(_json(lines, cost, compared, differing, skipped)))
    else:
        print(_text(lines, cost, differing, is_markdown=arguments.format == "markdown"))
    return EXIT_OK


def _json(
    lines: list[Line],
    cost: str,
    groups: list[Group],
    differing: dict[str, list[str]],
    skipped: list[Skipped],
) -> dict[str, object]:
    names = [group.name for group in groups]
    return {
        "cost": cost,
        "rows": tables.as_rows(lines),
        "config": {key: dict(zip(names, each, strict=True)) for key, each in differing.items()},
        "left_out": [vars(each) for each in skipped],
    }


def _text(
    lines: list[Line], cost: str, differing: dict[str, list[str]], *, is_markdown: bool
) -> str:
    figures = tables.columns(lines, cost)
    keys = tables.config_columns(differing, lines)
    notes = tables.footnotes(lines, cost)
    if is_markdown:
        parts = [text_table.markdown(figures), "\n".join(f"- {note}" for note in notes)]
        parts += ["What differs:", text_table.markdown(keys)] if differing else []
        return "\n\n".join(part.rstrip() for part in parts if part)
    table = text_table.aligned(
        {name: texts for name, texts in figures.items() if any(texts)},
        left=tables.LEFT,
        width=text_table.terminal_width(),
        dispensable=tables.DISPENSABLE,
    )
    parts = [table + "\n".join(notes)]
    parts += [text_table.aligned(keys, left=tables.LEFT)] if differing else []
    return "\n\n".join(part.rstrip() for part in parts)
