"""`netopt predict RUN --input …`: what the exported network of a run says of new samples."""

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netopt_cli.arguments import Parser, add_allow
from netopt_cli.errors import EXIT_OK, InputError, did_you_mean

HELP = "Say what an exported network makes of a sentence, an image, a recording, a user, …"
_EPILOG = """\
The network is the LiteRT file of the last stage. Its folder, with model.tflite and predict.json, is
all that is needed: it can be copied and named in place of the run.

Examples:
  netopt predict runs/latest --input 'A gripping film.' --input 'Too long by half.'
  netopt predict runs/latest --stage prune --input digit.png --json
  cat sentences.txt | netopt predict runs/latest --input -
"""
_STAGE_FOLDER = re.compile(r"(\d+)-(.+)")
_FILE = "model.tflite"


def parser() -> Parser:
    found = Parser("predict", HELP, _EPILOG)
    found.add_argument("run", metavar="RUN", help="the directory of a run, or of one of its stages")
    found.add_argument("--input", "-i", action="append", default=[], metavar="INPUT",
                       help="a sample: a sentence, a file, …; - reads one a line")  # fmt: skip
    found.add_argument("--stage", metavar="STAGE", help="this stage, or baseline (the last one)")
    found.add_argument("--json", action="store_true", help="one JSON object a line")
    add_allow(found)
    return found


def main(argv: Sequence[str]) -> int:
    arguments = parser().read(argv)
    values = [line for value in arguments.input for line in _lines(value)]
    if not values:
        raise InputError("predict needs a sample: --input VALUE, or --input - for lines of stdin")
    folder = _folder(Path(arguments.run), arguments.stage)

    from netopt_cli.terminal import native_output_to, quiet_tensorflow

    quiet_tensorflow()
    with native_output_to(Path(os.devnull)):  # where the runtime says how it computes
        answers = _answers(folder, values, arguments.input, tuple(arguments.allow))
    for name, each in answers:
        print(json.dumps({"input": name, **each}) if arguments.json else _line(name, each))
    return EXIT_OK


def _answers(
    folder: Path, values: Sequence[str], words: Sequence[str], allow: tuple[str, ...]
) -> list[tuple[str, Mapping[str, Any]]]:
    """What each sample is called, and what is said of it; `words` are those of the command line."""
    import numpy as np

    from netopt_cli.bundle import read_bundle
    from netopt_cli.contracts import Timing
    from netopt_cli.measure.runtime import LitertRunner

    bundle = read_bundle(folder, allow)
    # `Path.is_file` fails on a name as long as a sentence.
    files = [word for word in words if os.path.isfile(word)]  # noqa: PTH113
    if bundle.reader.kind == "text" and files:
        raise InputError(
            f"a text is given as it is. Received: the file {files[0]}; the texts in its lines are "
            f"read by: --input - < {shlex.quote(files[0])}"
        )
    runner = LitertRunner(folder / _FILE, Timing())
    samples = bundle.reader.read(values)
    x = bundle.normalization.numpy(np.stack([sample for _, sample in samples]))
    (outputs,) = runner.logits([x])
    said = bundle.task.told(x, outputs, bundle.names)
    return [(name, each) for (name, _), each in zip(samples, said, strict=True)]


def _lines(value: str) -> list[str]:
    return [line.rstrip("\n") for line in sys.stdin] if value == "-" else [value]


def _folder(path: Path, stage: str | None) -> Path:
    """The folder with the file that is meant.

    Raises:
        InputError: There is none.
    """
    if stage is None and (path / _FILE).is_file():
        return path
    if not path.is_dir():
        raise InputError(f"RUN must be the directory of a run. Received: {path}")
    stages = {
        (int(parts[1]), parts[2]): file.parent
        for file in path.glob(f"*/{_FILE}")
        if (parts := _STAGE_FOLDER.fullmatch(file.parent.name))
        and not parts[2].endswith("-control")
    }
    if not stages:
        reason = "its network has early exits" if list(path.glob("*/segment_1.tflite")) else ""
        reason = reason or "a run over several seeds has them in the directories of its seeds"
        raise InputError(f"{path} has no stage with a {_FILE}: {reason}")
    if stage is None:
        return stages[max(stages)]
    found = [folder for (_, name), folder in stages.items() if name == stage]
    if not found:
        names = [name for _, name in sorted(stages)]
        raise InputError(f"{path} has no stage '{stage}'.{did_you_mean(stage, names)}")
    return found[0]


def _line(name: str, said: Mapping[str, Any]) -> str:
    """For a person: what is said first, and what it is said of."""
    shown = "  ".join(_text(key, value) for key, value in said.items() if key != "probabilities")
    return f"{shown}  {name}"


def _text(key: str, value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(map(str, value)) or "none"
    return f"{value:.2%}" if key == "probability" else f"{key}: {value}"
