"""The commands: name, module, help. A command is one file in `commands/` and one line here.

The module has `HELP` (the line below), `parser()` and `main(argv) -> exit code`. The help is
written twice so that `netopt --help` imports no command; a test compares the two.
"""

import importlib
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Command:
    """Attributes:
    module: Where the command is.
    help: One line; a command without help is hidden.
    """

    module: str
    help: str = ""

    def load(self) -> ModuleType:
        return importlib.import_module(self.module)


COMMANDS = {
    "train": Command(
        "netopt_cli.commands.train",
        "Train the baseline, apply the optimization stages, measure and record.",
    ),
    "resume": Command(
        "netopt_cli.commands.resume",
        "Go on with a run that was interrupted or failed.",
    ),
    "sensitivity": Command(
        "netopt_cli.commands.sensitivity",
        "Scan what each layer answers to pruning, lower rank and fewer bits.",
    ),
    "predict": Command(
        "netopt_cli.commands.predict",
        "Say what an exported network makes of a sentence, an image, a recording, a user, …",
    ),
    "launch": Command(
        "netopt_cli.commands.launch",
        "Start several workers of target=multi_worker on this machine.",
    ),
    "runs": Command(
        "netopt_cli.commands.runs",
        "List, filter and sort the runs in a folder.",
    ),
    "compare": Command(
        "netopt_cli.commands.compare",
        "Compare runs: scores over seeds, cost, Pareto front, configs.",
    ),
    "check": Command(
        "netopt_cli.commands.check",
        "Check a run against a baseline file: a gate for CI.",
    ),
    "report": Command(
        "netopt_cli.commands.report",
        "Write a run, its seeds or a sweep as one HTML page that opens offline.",
    ),
    "list": Command(
        "netopt_cli.commands.list_choices",
        "List the config groups and their choices.",
    ),
    "show": Command(
        "netopt_cli.commands.show_choice",
        "Show the YAML of a choice, with its comments.",
    ),
    "unpack": Command(
        "netopt_cli.commands.unpack",
        "Rebuild the .tflite file that a packed file was made of.",
    ),
    "doctor": Command(
        "netopt_cli.commands.doctor",
        "Show versions, devices, threads, and what is missing for what.",
    ),
    "completion": Command(
        "netopt_cli.commands.completion",
        "Print the completion script of a shell.",
    ),
    "__complete": Command("netopt_cli.commands.complete"),
}
