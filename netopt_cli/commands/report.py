"""`netopt report RUN`: a run, its seeds or a sweep as one page that opens offline."""

import os
from collections.abc import Sequence
from pathlib import Path

from netopt_cli.arguments import Parser
from netopt_cli.errors import EXIT_OK, InputError, RecordError
from netopt_cli.records import StoredRun
from netopt_cli.run_dir import RECORD
from netopt_cli.run_groups import gather

HELP = "Write a run, its seeds or a sweep as one HTML page that opens offline."
_EPILOG = """\
The page goes to report.html in the run directory. Nothing in it comes from elsewhere, and no script
is in it. png and svg are its pictures in one file.

Examples:
  netopt report runs/latest
  netopt report runs/latest --output shown.html
  netopt report runs/20261124-110000-sweep --format png
"""
_FORMATS = ("html", "png", "svg")


def parser() -> Parser:
    found = Parser("report", HELP, _EPILOG)
    add = found.add_argument
    add("run", metavar="RUN", help="a run directory, a parent of seeds, or a sweep")
    add("--output", "-o", metavar="FILE", help="default: report.FORMAT in the directory of RUN")
    add("--format", choices=_FORMATS,
        help="html (default), png or svg; else by the suffix of --output")  # fmt: skip
    return found


def main(argv: Sequence[str]) -> int:
    arguments = parser().read(argv)
    folder = Path(arguments.run)
    output, format_ = _output(folder, arguments.output, arguments.format)
    content = _content(folder, format_)

    from netopt_cli.files import write_bytes

    write_bytes(output, content)
    print(os.path.relpath(output))
    return EXIT_OK


def _output(folder: Path, output: str | None, format_: str | None) -> tuple[Path, str]:
    """The file to write and its format, which each may follow from the other."""
    if output is None:
        return folder / f"report.{format_ or 'html'}", format_ or "html"
    path = Path(output)
    suffix = path.suffix.removeprefix(".").lower()
    if format_ is None and suffix not in _FORMATS:
        raise InputError(
            f"--output must end in .html, .png or .svg, or --format must say what it is. "
            f"Received: {output}"
        )
    if not path.parent.is_dir():
        raise InputError(f"--output must be in a directory that exists. Received: {output}")
    if path.is_dir():
        raise InputError(f"--output must be a file, not a directory. Received: {output}")
    return path, format_ or suffix


def _content(folder: Path, format_: str) -> bytes:
    from netopt_cli.report import run_page, sweep_page
    from netopt_cli.report.subject import Subject, single

    report: run_page.RunReport | sweep_page.SweepReport
    if (folder / RECORD).exists():
        report = run_page.RunReport(single(StoredRun(folder)))
    else:
        groups, skipped = gather([str(folder)])
        if not groups:
            reasons = "; ".join(f"{each.name}: {each.reason}" for each in skipped)
            raise RecordError(f"none of the runs in {folder} is completed ({reasons})")
        if len(groups) == 1:
            report = run_page.RunReport(Subject(groups[0], skipped=skipped))
        else:
            report = sweep_page.SweepReport(folder.absolute().name, groups, skipped)
    if format_ == "html":
        return report.html().encode()
    picture = report.picture()
    return picture.png() if format_ == "png" else picture.svg(is_file=True).encode()
