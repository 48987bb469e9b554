"""The exception tree, the exit codes and how a wrong word is answered.

NetoptError                    exit 1
├── InputError                 exit 2: something the user wrote cannot work
│   ├── ConfigError            an unknown group, choice or key; a value of the wrong type or range
│   ├── DataError              a data set that is missing, malformed or inconsistent
│   ├── ArchError              a network that cannot be built for this data
│   ├── RecordError            a run directory without a record, or with one that cannot be read
│   ├── TargetError            hardware that is not there
│   ├── TrackingError          a tracker that cannot begin, as its server does not answer
│   └── MissingExtraError      an optional package that is not installed
└── RunError                   exit 1: the run started and failed
    ├── DivergedError          the loss became NaN, infinite or far worse than chance
    ├── ParityError            the exported file does not compute what the network computes
    ├── LostInputError         a file of the data, or a network, was lost or damaged meanwhile
    ├── LostWorkerError        another worker cannot be reached any more
    └── StorageError           the runs directory cannot be written
"""

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130


class NetoptError(Exception):
    """An error that is shown to the user as its message alone, without a traceback.

    Attributes:
        recurs: Whether a run that goes on would end in it again, its config being what it is.
    """

    exit_code = EXIT_FAILED
    recurs = False


class InputError(NetoptError):
    exit_code = EXIT_WRONG_INPUT
    recurs = True


class ConfigError(InputError):
    pass


class DataError(InputError):
    pass


class ArchError(InputError):
    pass


class RecordError(InputError):
    pass


class TargetError(InputError):
    pass


class TrackingError(InputError):
    pass


class MissingExtraError(InputError):
    """Raised when a feature needs a package of an optional extra."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the optional extra '{extra}': pip install 'netopt[{extra}]'"
        )


class RunError(NetoptError):
    pass


class DivergedError(RunError):
    recurs = True


class ParityError(RunError):
    recurs = True


class LostInputError(RunError):
    """Raised for a file that a run read, or found, when it began and can read no more."""


class LostWorkerError(RunError):
    pass


class StorageError(RunError):
    pass


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the nearest choice, else " Choices: …"; "" without any."""
    known = sorted(set(choices))
    if not known:
        return ""
    by_folded = {choice.casefold(): choice for choice in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{by_folded[near[0]]}'?"
    return f" Choices: {', '.join(known)}."
