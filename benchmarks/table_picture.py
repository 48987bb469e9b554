"""Draws the metrics table of a run as an SVG picture.

python -m benchmarks.table_picture runs/latest docs/images/run.svg
"""

from __future__ import annotations

import argparse
import io
import json
import re
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console

from netopt_cli.tables import terminal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    record = json.loads((options.run / "record.json").read_text())
    command = " ".join(record["command"])
    console = Console(record=True, width=140, file=io.StringIO())
    console.print(terminal(record["rows"], "", console.width))
    # Without Rich's font from a server: a picture that opens offline, in the reader's own font.
    template = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    console.save_svg(str(options.picture), title=command, code_format=template)


if __name__ == "__main__":
    main()
