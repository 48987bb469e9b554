"""The keys of a composed configuration: whether one is there, and the nearest where it is not."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from netopt_cli.contracts import NAMED_GROUPS
from netopt_cli.errors import did_you_mean

STAGES = "opt"


def chosen_groups(config: DictConfig) -> Collection[str]:
    """The groups of the defaults list, `arch`, `arch@opt.distill.teacher`, …"""
    return [str(key) for key in config.hydra.runtime.choices]


def plain_tree(config: DictConfig) -> dict[str, Any]:
    tree = OmegaConf.to_container(config, resolve=False)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def _split(key: str) -> list[str]:
    return key.replace("[", ".").replace("]", "").split(".")


def lookup(config: DictConfig, key: str) -> tuple[bool, Any, Any]:
    """Whether the configuration has `key`, the value around it, and its own.

    What is behind an interpolation is not known before it is resolved, and counts as there.
    """
    parts = _split(key)
    parent: Any = None
    node: Any = plain_tree(config)
    for index, part in enumerate(parts):
        if isinstance(node, str) and "${" in node:
            return True, node, None
        parent = node
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return False, parent if index == len(parts) - 1 else None, None
    return True, parent, node


def is_open(parent: Any, key: str) -> bool:
    """True for a mapping whose keys netopt does not all know: an argument, a user's component."""
    # A component is at `arch`, at `opt.prune`.
    depth = 2 if _split(key)[0] in NAMED_GROUPS else 1
    if not isinstance(parent, dict) or len(_split(key)) <= depth:
        return False
    return not str(parent.get("_target_", "")).startswith("netopt_cli.")


def nearest_key(key: str, tree: dict[str, Any], groups: Sequence[str]) -> str:
    """The same name elsewhere, or the nearest where the word goes wrong, or the choices there."""
    parts = _split(key)
    section = f"{parts[0]}." if len(parts) > 1 else ""
    paths = [path for path in _paths(tree, "") if not path.startswith("hydra.")]
    elsewhere = [p for p in paths if p.startswith(section) and p.endswith(f".{parts[-1]}")]
    if elsewhere:
        return f" Did you mean '{min(elsewhere, key=lambda path: (path.count('.'), len(path)))}'?"
    node: Any = {**dict.fromkeys(groups), **tree}
    for index, part in enumerate(parts):
        names = [str(name) for name in node if name != "_target_"] if isinstance(node, dict) else []
        if part not in names:
            before, after = parts[:index], parts[index + 1 :]
            near = difflib.get_close_matches(part, names, n=1)
            if near:
                return f" Did you mean '{'.'.join([*before, near[0], *after])}'?"
            return did_you_mean(part, names)
        node = node[part]
    return ""


def _paths(node: Any, prefix: str) -> Iterator[str]:
    """The dotted keys of the values in a tree."""
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from _paths(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix
