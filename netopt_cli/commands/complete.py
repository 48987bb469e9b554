"""`netopt __complete LINE`: the words that may stand at the end of a line; for the scripts."""

from collections.abc import Sequence

from netopt_cli import completion
from netopt_cli.arguments import Parser
from netopt_cli.errors import EXIT_OK

HELP = ""


def parser() -> Parser:
    found = Parser("__complete", "Print the words that may end a command line.")
    found.add_argument("line", help="the line up to the cursor")
    return found


def main(argv: Sequence[str]) -> int:
    for word in completion.candidates(parser().read(argv).line):
        print(word)
    return EXIT_OK
