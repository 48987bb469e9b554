"""What an override of the command line says: its values, its stages, what it may not be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from netopt_cli import catalog
from netopt_cli.config_keys import STAGES
from netopt_cli.errors import ConfigError

SEARCH_PATH = "hydra.searchpath"


def all_choices(folders: Sequence[Path]) -> dict[str, list[str]]:
    return {group: list(catalog.choices(group, folders)) for group in catalog.groups(folders)}


def search_path(overrides: Sequence[Override]) -> list[Path]:
    """The folders of `hydra.searchpath=[…]`, which Hydra searches after the others."""
    found: list[Path] = []
    for override in overrides:
        if override.key_or_group == SEARCH_PATH:
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


def stage_list(value: Any) -> list[str]:
    stages = ["none" if value is None else value] if not isinstance(value, list) else value
    for stage in stages:
        if not isinstance(stage, str):
            raise ConfigError(f"opt takes names of stages. Received: opt={value}")
        if stages.count(stage) > 1:
            raise ConfigError(
                f"opt has '{stage}' twice. Received: opt=[{','.join(map(str, stages))}]; to repeat "
                f"a stage give it a name of its own: opt=[{stage}] +opt@opt.{stage}2={stage}"
            )
    return stages


def refuse_sweeps(overrides: Sequence[Override]) -> None:
    for override in overrides:
        if override.is_sweep_override():
            key, value = override.key_or_group, override.get_value_string()
            in_order = f", or write opt=[{value}] for stages in this order" if key == STAGES else ""
            raise ConfigError(
                f"{override.input_line} has several values: add -m to run them all{in_order}"
            )


def refuse_two_lists(overrides: Sequence[Override]) -> None:
    given = [o for o in overrides if o.key_or_group == STAGES and not o.package]
    if len(given) > 1:
        lines = " ".join(str(o.input_line) for o in given)
        raise ConfigError(f"opt is given twice. Received: {lines}; in order: opt=[a,b]")
