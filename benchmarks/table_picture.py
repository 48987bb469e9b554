"""Draws the metrics table of a run as an SVG picture.

python -m benchmarks.table_picture runs/latest docs/images/run.svg
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

from rich.console import Console

from netopt_cli.tables import terminal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    record = json.loads((options.run / "record.json").read_text())
    command = " ".join(record["command"])
    console = Console(record=True, width=125, file=io.StringIO())
    console.print(terminal(record["rows"], "", console.width))
    console.save_svg(str(options.picture), title=command)


if __name__ == "__main__":
    main()
