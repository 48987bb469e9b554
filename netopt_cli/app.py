"""The command line: finds the command, runs it, turns what it raises into an exit code.

Only the standard library is imported here, and no command before it is called: `netopt --help`
answers at once.
"""

import os
import sys
from collections.abc import Sequence

from netopt_cli import __version__, failures
from netopt_cli.command_table import COMMANDS
from netopt_cli.errors import EXIT_FAILED, EXIT_OK, EXIT_WRONG_INPUT, InputError, did_you_mean

_HELP = """\
netopt {version}: smaller, faster, sturdier Keras 3 networks, measured on the exported file

Usage: netopt COMMAND [ARGUMENTS]

Commands:
{commands}

Options:
  -h, --help     Show this help; `netopt COMMAND --help` shows that of a command.
  --version      Show the version.

Examples:
  netopt train +arch=cnn +opt=distill
  netopt train arch=resnet opt=[prune,quantize] data=fashion_mnist
  netopt train -m arch=mlp,lenet5 'opt=none,[prune,quantize]' seed=0,1,2

Exit codes:
  0    ok
  1    the run failed
  2    wrong input: an unknown command, option, group, choice or key; a bad value; bad data
  130  interrupted

NETOPT_TRACEBACK=1 shows the traceback of an internal error.
"""


def help_text() -> str:
    shown = {name: command.help for name, command in COMMANDS.items() if command.help}
    width = max(map(len, shown)) + 2
    commands = "\n".join(f"  {name:<{width}} {text}" for name, text in shown.items())
    return _HELP.format(version=__version__, commands=commands)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code. `argv` is without the program's name."""
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader left (`netopt list | head -1`); the flush at exit must find an open file.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_OK
    except (Exception, KeyboardInterrupt) as error:
        return failures.report(error)
    return code


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        print(help_text(), end="", file=sys.stderr)
        return EXIT_WRONG_INPUT
    name, *rest = arguments
    if name in ("-h", "--help"):
        print(help_text(), end="")
        return EXIT_OK
    if name == "--version":
        print(f"netopt {__version__}")
        return EXIT_OK
    if name not in COMMANDS:
        raise InputError(_unknown(name))
    return COMMANDS[name].load().main(rest)


def _unknown(name: str) -> str:
    kind = "option" if name.startswith("-") else "command"
    if "=" in name and kind == "command":
        return f"unknown command '{name}'. Did you mean 'netopt train {name}'?"
    known = ["--help", "--version"] if kind == "option" else _visible()
    return f"unknown {kind} '{name}'.{did_you_mean(name, known)}"


def _visible() -> list[str]:
    return [name for name, command in COMMANDS.items() if command.help]


if __name__ == "__main__":
    sys.exit(main())
