"""`netopt list`: the groups and their choices, each with its one-line description."""

from collections.abc import Sequence

from netopt_cli import catalog
from netopt_cli.arguments import Parser, add_config_dir
from netopt_cli.errors import EXIT_OK

HELP = "List the config groups and their choices."


def parser() -> Parser:
    found = Parser("list", HELP)
    found.add_argument("group", nargs="?", metavar="GROUP", help="only this group")
    add_config_dir(found)
    return found


def main(argv: Sequence[str]) -> int:
    arguments = parser().read(argv)
    folders = catalog.config_folders(arguments.config_dir)
    groups = [arguments.group] if arguments.group else catalog.groups(folders)
    tables = {
        group: {
            name: catalog.description(path)
            for name, path in catalog.choices(group, folders).items()
        }
        for group in groups
    }
    _print(tables)
    return EXIT_OK


def _print(tables: dict[str, dict[str, str]]) -> None:
    from rich.table import Table

    from netopt_cli.terminal import consoles

    out = consoles().out
    width = max(len(name) for names in tables.values() for name in names)
    for group, names in tables.items():
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column(style="bold", min_width=width, no_wrap=True)
        table.add_column()
        for name, text in names.items():
            table.add_row(f"  {name}", text)
        out.print(f"[bold cyan]{group}[/]")
        out.print(table)
