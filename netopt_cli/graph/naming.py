"""Layers by name: patterns that choose them, new names, and lists for the user."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from netopt_cli.errors import InputError, did_you_mean


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def require_matches(names: Sequence[str], patterns: Iterable[str], *, where: str) -> None:
    """Refuses a pattern that chooses nothing: it is a slip of the pen.

    Args:
        where: The parameter that has the patterns, for the message.

    Raises:
        InputError: A pattern matches none of the names.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"{where} matches no layer. Received: {pattern}.{did_you_mean(pattern, names)}"
            )


def unused_name(wanted: str, taken: set[str]) -> str:
    """Returns `wanted`, or with a number where it is taken; and takes it."""
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    taken.add(name)
    return name


def left_lines(left: Iterable[tuple[str, str]]) -> list[str]:
    """(name, reason) of layers that were left alone -> one line for each reason."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, reason in left:
        names[reason].append(name)
    return [f"left as they are, {reason}: {', '.join(found)}" for reason, found in names.items()]
