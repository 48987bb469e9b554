"""`netopt runs`: what is in a folder of runs, a line each, chosen and sorted."""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from netopt_cli import text_table
from netopt_cli.arguments import Parser, whole_number
from netopt_cli.columns import describe, resolve
from netopt_cli.errors import EXIT_OK
from netopt_cli.run_list import (
    COLUMNS,
    Condition,
    Line,
    began_after,
    has_stages,
    header,
    lines,
    metrics_of,
    moment,
    ordered,
)

HELP = "List, filter and sort the runs in a folder."
_EPILOG = """\
Figures are those of the last stage; of several seeds, their means.

Examples:
  netopt runs --opt prune --where 'accuracy>0.97' --sort size_bytes
  netopt runs sweeps/lr --sort accuracy --reverse --limit 5 --format csv
"""
_SHOWN = (
    "sparsity", "size_bytes", "size_packed_bytes", "latency_ms_median", "macs",
    "wall_seconds",
)  # fmt: skip
_WORDS = ("run", "status", "started", "arch", "data", "opt", "seed")
_DISPENSABLE = ("started", "time", "MACs", "sparsity", "arch", "opt", "packed", "latency", "data")


def parser() -> Parser:
    found = Parser("runs", HELP, _EPILOG)
    add = found.add_argument
    add("folder", nargs="?", default="runs", metavar="DIR", help="where to look (runs)")
    add("--arch", metavar="ARCH", help="only this arch, or a pattern as 'c*'")
    add("--data", metavar="DATA", help="only this data set, or a pattern")
    add("--opt", metavar="STAGES", help="only runs with these stages, as prune,quantize")
    add("--status", metavar="STATUS", help="only completed, failed, interrupted, running, broken")
    add("--since", metavar="WHEN", help="only runs begun since: 2026-11-24, or 12h, 2d, 1w ago")
    add("--last", type=whole_number, metavar="N", help="only the N begun last")
    add("--where", action="append", default=[], metavar="CONDITION",
        help="only runs for which 'accuracy>0.97' holds; repeat it for several")  # fmt: skip
    add("--sort", default="started", metavar="COLUMN", help="by this column, the least first")
    add("--reverse", action="store_true", help="the greatest first")
    add("--limit", type=whole_number, metavar="N", help="the first N lines of what is left")
    add("--format", choices=["table", "csv", "json"], default="table", help="how to print (table)")
    return found


def main(argv: Sequence[str]) -> int:
    arguments = parser().read(argv)
    column = resolve(arguments.sort, COLUMNS)
    found = list(lines(Path(arguments.folder)))
    chosen = ordered(_chosen(found, arguments), column, reverse=arguments.reverse)
    if arguments.limit is not None:
        chosen = chosen[: arguments.limit]
    if arguments.format == "json":
        print(json.dumps(chosen))
    elif arguments.format == "csv":
        print(text_table.as_csv(chosen, header(chosen)), end="")
    elif chosen:
        print(_table(chosen), end="")
    if len(chosen) < len(found) or not found:
        print(f"{len(chosen)} of {len(found)} runs in {arguments.folder}", file=sys.stderr)
    return EXIT_OK


def _chosen(found: list[Line], arguments: Namespace) -> list[Line]:
    for name in ("arch", "data", "status"):
        pattern = getattr(arguments, name)
        if pattern is not None:
            found = [line for line in found if fnmatchcase(line.get(name) or "", pattern)]
    if arguments.opt is not None:
        found = [line for line in found if has_stages(line, arguments.opt)]
    for condition in map(Condition.read, arguments.where):
        found = [line for line in found if condition(line)]
    if arguments.since is not None:
        since = moment(arguments.since, datetime.now(UTC))
        found = [line for line in found if began_after(line, since)]
    if arguments.last is not None:
        begun = [line for line in ordered(found, "started") if line.get("started")]
        found = begun[max(0, len(begun) - arguments.last) :]
    return found


def _table(found: list[Line]) -> str:
    texts = {name: [str(line.get(name) or "") for line in found] for name in _WORDS}
    texts["started"] = [text[:16].replace("T", " ") for text in texts["started"]]
    for name in (*metrics_of(found), *_SHOWN):
        column = describe(name)
        values = [line.get(name) for line in found]
        texts[column.title] = ["" if value is None else column.text(value) for value in values]
    return text_table.aligned(
        texts, left=_WORDS, width=text_table.terminal_width(), dispensable=_DISPENSABLE
    )
