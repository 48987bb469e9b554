"""A parser of command-line options whose errors are netopt's."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from netopt_cli.errors import ConfigError, did_you_mean


class Parser(argparse.ArgumentParser):
    """Options may stand before, between and after the other arguments; none is abbreviated."""

    def __init__(self, command: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=f"netopt {command}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parses `argv`.

        Raises:
            ConfigError: For an unknown option, with the nearest one, or a wrong number of words.
        """
        takes_the_rest = any(action.nargs == argparse.REMAINDER for action in self._actions)
        parse = self.parse_known_args if takes_the_rest else self.parse_known_intermixed_args
        found, extra = parse(argv)
        if extra:
            word = extra[0].partition("=")[0]
            if word.startswith("-"):
                hint = did_you_mean(word, self.options())
                if "overrides" in found and " Did" not in hint:
                    hint = f" Settings have no dashes: {word.lstrip('-')}=VALUE."
                raise ConfigError(f"unknown option '{word}'.{hint}")
            raise ConfigError(f"unexpected argument '{extra[0]}'; see {self.prog} --help")
        return found

    def options(self) -> list[str]:
        """The option strings, as `--json`."""
        return [option for action in self._actions for option in action.option_strings]

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def whole_number(text: str) -> int:
    """Reads a whole number from 0, for `type=` of an option."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0. Received: '{text}'")
    return int(text)


def add_config_dir(parser: Parser) -> None:
    """Adds the option that names a folder of the user's own configs."""
    parser.add_argument(
        "--config-dir",
        "-cd",
        metavar="DIR",
        help="a folder of your own configs (arch/mine.yaml, …); its files go before netopt's",
    )


def add_run_options(parser: Parser) -> None:
    """Adds what every command has that works in a run directory."""
    add = parser.add_argument
    add("--json", action="store_true", help="print one line of JSON a run instead of the table")
    add("--quiet", "-q", action="store_true", help="no progress on stderr")
    add_allow(parser)


def add_job_options(parser: Parser) -> None:
    """Adds what every command has that composes a config and works in a run directory."""
    add = parser.add_argument
    add("overrides", nargs="*", metavar="OVERRIDE", help="group=choice or key=value")
    add_run_options(parser)
    add_config_dir(parser)
    add("--config-name", "-cn", default="run", metavar="NAME", help="the primary config (run)")


def add_allow(parser: Parser) -> None:
    """Adds the option that names packages of the user's own."""
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="let _target_ name this package of yours, which may be in the current directory; "
        "repeat it for several",
    )
