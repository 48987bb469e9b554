"""`netopt show GROUP/NAME`: the YAML of a choice as it is written, comments and all."""

from collections.abc import Sequence

from netopt_cli import catalog
from netopt_cli.arguments import Parser, add_config_dir
from netopt_cli.errors import EXIT_OK, ConfigError

HELP = "Show the YAML of a choice, with its comments."


def parser() -> Parser:
    found = Parser("show", HELP, "Example: netopt show opt/prune")
    found.add_argument("choice", metavar="GROUP/NAME", help="as `arch/cnn` or `arch=cnn`")
    add_config_dir(found)
    return found


def main(argv: Sequence[str]) -> int:
    arguments = parser().read(argv)
    group, _, name = arguments.choice.lstrip("+").replace("=", "/", 1).partition("/")
    folders = catalog.config_folders(arguments.config_dir)
    groups = catalog.groups(folders)
    inside = [f"{each}/{group}" for each in groups if group in catalog.choices(each, folders)]
    if not name and inside:
        raise ConfigError(f"show needs GROUP/NAME. Did you mean '{inside[0]}'?")
    if not name:
        known = catalog.choices(group, folders)
        raise ConfigError(f"show needs GROUP/NAME; the choices of {group}: {', '.join(known)}")
    path = catalog.find(group, name, folders)
    print(path.read_text(encoding="utf-8"), end="")
    return EXIT_OK
