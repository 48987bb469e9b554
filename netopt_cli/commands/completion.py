"""`netopt completion SHELL`: the script that makes a shell complete netopt's words."""

from collections.abc import Sequence

from netopt_cli import completion
from netopt_cli.arguments import Parser
from netopt_cli.errors import EXIT_OK

HELP = "Print the completion script of a shell."

_INSTALL = """\
Install:
  bash   netopt completion bash >> ~/.bashrc
  zsh    netopt completion zsh > "${fpath[1]}/_netopt"
  fish   netopt completion fish > ~/.config/fish/completions/netopt.fish
"""


def parser() -> Parser:
    found = Parser("completion", HELP, _INSTALL)
    found.add_argument("shell", choices=list(completion.SCRIPTS))
    return found


def main(argv: Sequence[str]) -> int:
    arguments = parser().read(argv)
    print(completion.SCRIPTS[arguments.shell], end="")
    return EXIT_OK
