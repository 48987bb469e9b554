"""`netopt unpack FILE`: the LiteRT file that a packed one was made of."""

from collections.abc import Sequence
from pathlib import Path

from netopt_cli.arguments import Parser
from netopt_cli.errors import EXIT_OK, InputError

HELP = "Rebuild the .tflite file that a packed file was made of."


def parser() -> Parser:
    found = Parser("unpack", HELP, "Example: netopt unpack runs/latest/1-prune/model.packed")
    found.add_argument("file", metavar="FILE", help="a packed file, as `model.packed` of a run")
    found.add_argument("--output", "-o", metavar="OUT", help="default: FILE with suffix .tflite")
    found.add_argument("--force", "-f", action="store_true", help="replace OUT if it is there")
    return found


def main(argv: Sequence[str]) -> int:
    arguments = parser().read(argv)
    file = Path(arguments.file)
    try:
        packed = file.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {file}: {error.strerror}") from error
    output = Path(arguments.output) if arguments.output else file.with_suffix(".tflite")
    if not output.parent.is_dir():
        raise InputError(f"--output must be in a directory that exists. Received: {output}")
    if output.exists() and not arguments.force:
        raise InputError(f"{output} exists: choose another --output, or replace it by --force")

    from netopt_cli.export.packed import unpack
    from netopt_cli.files import write_bytes

    content = unpack(packed)
    write_bytes(output, content)
    print(f"{output}: {len(content):,} bytes out of {len(packed):,}")
    return EXIT_OK
