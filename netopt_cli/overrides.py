"""What an override of the command line says: its values, its stages, what it may not be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from netopt_cli import catalog
from netopt_cli.config_keys import STAGES
from netopt_cli.contracts import NAMED_GROUPS
from netopt_cli.errors import ConfigError

SEARCH_PATH = "hydra.searchpath"
_LONGEST = 20_000
"""Characters of an override: the class names of ImageNet fit into it."""
_DEEPEST = 20
"""Brackets in brackets; the time that Hydra's parser takes grows with their square."""
_AS_LIST = {
    STAGES: ", or write opt=[{}] for stages in this order",
    "seed": ", or write seeds=[{}] for one table of them",
    "seeds": ", or write seeds=[{}] for one table of them",
}
"""What else several values may have meant."""


def all_choices(folders: Sequence[Path]) -> dict[str, list[str]]:
    return {group: list(catalog.choices(group, folders)) for group in catalog.groups(folders)}


def search_path(overrides: Sequence[Override]) -> list[Path]:
    """The folders of `hydra.searchpath=[…]`, which Hydra searches after the others."""
    found: list[Path] = []
    for override in overrides:
        if override.key_or_group == SEARCH_PATH:
            if override.is_sweep_override():
                raise ConfigError(f"{SEARCH_PATH} cannot be swept. Received: {override.input_line}")
            value = override.value()
            for entry in value if isinstance(value, list) else [value]:
                folder = Path(str(entry).removeprefix("file://"))
                if not folder.is_dir():
                    raise ConfigError(f"{SEARCH_PATH} takes directories. Received: {entry}")
                found.append(folder)
    return found


def alternatives(override: Override) -> list[Any]:
    """The values that an override gives to its key: one, or those of a sweep."""
    if not override.is_sweep_override():
        return [override.value()]
    if not override.is_discrete_sweep():
        return []
    return list(override.sweep_iterator(transformer=Override._convert_value))


def several(group: str, value: Any) -> list[str]:
    """The choices of a group that takes several, from one or a list of them.

    Raises:
        ConfigError: For what is no name, and one that is there twice.
    """
    names = value if isinstance(value, list) else ["none" if value is None else value]
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(
                f"{group} takes names of {NAMED_GROUPS[group]}s. Received: {group}={value}"
            )
        if names.count(name) > 1:
            raise ConfigError(
                f"{group} has '{name}' twice. Received: {group}=[{','.join(map(str, names))}]; to "
                f"have it twice give it a name of its own: {group}=[{name}] "
                f"+{group}@{group}.{name}2={name}"
            )
    return names


def refuse_too_much(line: str) -> None:
    """Refuses an override that is too long, or nested too deeply, to be parsed.

    Raises:
        ConfigError: Naming the rule.
    """
    if len(line) > _LONGEST:
        raise ConfigError(
            f"an override must be at most {_LONGEST:,} characters; put what is longer into a file "
            f"of --config-dir. Received: {len(line):,}, {line[:20]}…"
        )
    depth = 0
    for character in line:
        depth += (character in "[{(") - (character in "]})")
        if depth > _DEEPEST:
            raise ConfigError(
                f"an override must be at most {_DEEPEST} brackets deep. Received: {line[:40]}…"
            )


def refuse_sweeps(overrides: Sequence[Override]) -> None:
    for override in overrides:
        if override.is_sweep_override():
            key, value = override.key_or_group, override.get_value_string()
            in_order = _AS_LIST[key].format(value) if key in _AS_LIST else ""
            raise ConfigError(
                f"{override.input_line} has several values: add -m to run them all{in_order}"
            )


def refuse_seed_and_seeds(overrides: Sequence[Override], in_configs: Sequence[Any]) -> None:
    """Refuses a `seed` beside `seeds`, which would not count.

    Args:
        in_configs: The values of `seeds` where the overrides do not set it.
    """
    given = {override.key_or_group: override for override in overrides}
    if "seed" not in given:
        return
    wanted = alternatives(given["seeds"]) if "seeds" in given else in_configs
    several = next((value for value in wanted if value is not None), None)
    if several is not None:
        raise ConfigError(
            f"{given['seed'].input_line} does not go with seeds={several}: leave one of them out"
            + ("" if "seeds" in given else ", seeds=null turns off that of the config")
        )


def refuse_two_lists(overrides: Sequence[Override]) -> None:
    for group in NAMED_GROUPS:
        given = [o for o in overrides if o.key_or_group == group and not o.package]
        if len(given) > 1:
            lines = " ".join(str(o.input_line) for o in given)
            raise ConfigError(f"{group} is given twice. Received: {lines}; both: {group}=[a,b]")
