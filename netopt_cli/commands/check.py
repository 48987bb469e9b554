"""`netopt check RUN --baseline FILE`: fails when a run is worse than what it is checked against."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from netopt_cli import text_table
from netopt_cli.arguments import Parser
from netopt_cli.errors import EXIT_FAILED, EXIT_OK, InputError, RecordError

if TYPE_CHECKING:
    from argparse import Namespace

    from netopt_cli.run_groups import Group, Skipped

HELP = "Check a run against a baseline file: a gate for CI."
_EPILOG = """\
RUN is a run directory, a parent of seeds, or several runs that differ in their seed alone. Rules
and tolerances are in FILE, to be edited; docs/ci.md explains them, with a job for GitHub Actions.

Examples:
  netopt check runs/latest --baseline baseline.json --update    # makes FILE, or takes RUN as good
  netopt check runs/latest --baseline baseline.json --junit check.xml --summary summary.md

Exit codes: 0 as good as the baseline, 1 worse or incomplete, 2 wrong input.
"""


def parser() -> Parser:
    found = Parser("check", HELP, _EPILOG)
    add = found.add_argument
    add("runs", nargs="+", metavar="RUN", help="a run, or seeds of one")
    add("--baseline", required=True, metavar="FILE", help="the figures and rules (JSON)")
    add("--update", action="store_true", help="write RUN's figures into FILE; its rules stay")
    add("--junit", metavar="FILE", help="write JUnit XML")
    add("--summary", metavar="FILE", help="add Markdown to the end of FILE")
    return found


def main(argv: Sequence[str]) -> int:
    arguments = parser().read(argv)
    path = Path(arguments.baseline)
    if arguments.update and (arguments.junit or arguments.summary):
        raise InputError("--update makes the baseline, and checks nothing: leave out --junit and "
                         "--summary")  # fmt: skip
    for option in ("junit", "summary"):
        _require_folder(f"--{option}", getattr(arguments, option))

    from netopt_cli.run_groups import gather

    groups, skipped = gather(arguments.runs)
    if len(groups) > 1:
        names = ", ".join(group.name for group in groups)
        raise RecordError(f"check takes one run, or seeds of one. Received: {names}")
    if arguments.update:
        if skipped:
            first = skipped[0]
            raise RecordError(f"a baseline is made of completed runs: {first.name}: {first.reason}")
        return _update(path, groups[0])
    return _check(arguments, path, groups, skipped)


def _require_folder(option: str, file: str | None) -> None:
    if file and not Path(file).absolute().parent.is_dir():
        raise InputError(f"{option} must be in a folder that exists. Received: {file}")


def _update(path: Path, group: "Group") -> int:
    from netopt_cli import baseline_file
    from netopt_cli.checking import baseline_of, doubts

    previous = baseline_file.read(path) if path.exists() else None
    made = baseline_of(group, previous)
    path.parent.mkdir(parents=True, exist_ok=True)
    baseline_file.write(path, made)
    seeds = text_table.spans(list(group.runs))
    print(f"{path}: {len(made.rows)} rows of {group.name}, seeds: {seeds}")
    for remark in doubts(made, len(group.runs)):
        print(remark, file=sys.stderr)
    return EXIT_OK


def _check(
    arguments: "Namespace", path: Path, groups: "list[Group]", skipped: "list[Skipped]"
) -> int:
    from netopt_cli import baseline_file, check_tables
    from netopt_cli.checking import check, doubts, unchecked
    from netopt_cli.files import write_text

    baseline = baseline_file.read(path)
    checks = check(groups, skipped, baseline)
    remarks = doubts(baseline, len(groups[0].runs)) if groups else []
    new = unchecked(groups, baseline)
    if new:
        remarks.append(f"not in the baseline, and not checked: {', '.join(new)}")
    if checks:
        print(text_table.aligned(check_tables.columns(checks), left=check_tables.LEFT))
    for text in (*(each.message for each in checks if not each.passed), *remarks):
        print(text_table.plain(text))
    print(check_tables.conclusion(checks))
    run = groups[0].name if groups else arguments.runs[0]
    if arguments.junit:
        write_text(Path(arguments.junit), check_tables.junit(checks, run))
    if arguments.summary:
        with Path(arguments.summary).open("a", encoding="utf-8") as file:
            file.write(check_tables.summary(checks, run, remarks))
    return EXIT_OK if checks and all(each.passed for each in checks) else EXIT_FAILED
