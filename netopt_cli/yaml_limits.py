"""YAML of a stranger: its size is counted before anything is built of it.

A file of a few lines can stand for a billion values, by aliases of aliases, and one of a few
thousand brackets exhausts the stack of what reads it. The events of the parser, of which there is
one for each node as it is written, are enough to tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from netopt_cli.errors import ConfigError

MOST_BYTES = 1 << 18
"""Of a file; netopt's own have a few thousand."""
MOST_VALUES = 10_000
"""Of a file when its aliases are written out: hundreds of times what a run has."""
DEEPEST = 40
"""Levels of lists and mappings; readers recurse over them."""
LONGEST = 10_000
"""Characters of a key or value, which end up in names, tables and messages."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class _Node:
    """A collection, or what an anchor stands for, with its aliases written out."""

    anchor: str | None
    values: int = 1
    depth: int = 1

    def add(self, values: int, depth: int) -> None:
        self.values += values
        self.depth = max(self.depth, 1 + depth)


def read_text(path: Path) -> str:
    """The text of a YAML file that is safe to load.

    Raises:
        ConfigError: It is no file that can be read, or `check_yaml` refuses it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_BYTES + 1)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    check_yaml(text, str(path))
    return text


def check_yaml(text: str, where: str) -> None:
    """Refuses what would take too much memory, time or stack to build.

    Args:
        where: The file, for the message.

    Raises:
        ConfigError: Naming the rule and what was received.
    """
    if len(text) > MOST_BYTES:
        raise ConfigError(f"{where} must be a config of at most {MOST_BYTES:,} bytes")
    try:
        _count(text, where)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"a config is not valid YAML: {where}: {reason}") from error


def _count(text: str, where: str) -> None:
    outer = [_Node(None)]
    anchored: dict[str, _Node] = {}
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            outer.append(_Node(event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = outer.pop()
            if closed.anchor is not None:
                anchored[closed.anchor] = closed
            outer[-1].add(closed.values, closed.depth)
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > LONGEST:
                raise ConfigError(
                    f"{where} must have keys and values of at most {LONGEST:,} characters. "
                    f"Received: one of {len(event.value):,}, {event.value[:20]}…"
                )
            if event.anchor is not None:
                anchored[event.anchor] = _Node(event.anchor)
            outer[-1].add(1, 0)
        elif isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            if any(node.anchor == name for node in outer):
                raise ConfigError(f"{where} has a value that contains itself: *{name}")
            meant = anchored.get(name, _Node(None))  # the loader names an unknown one
            outer[-1].add(meant.values, meant.depth)
        if len(outer) + outer[-1].depth > DEEPEST:
            raise ConfigError(f"{where} must be at most {DEEPEST} levels deep")
        if outer[-1].values > MOST_VALUES:
            raise ConfigError(
                f"{where} must be at most {MOST_VALUES:,} values, with its aliases written out"
            )
