"""What the config of a run must be, whoever composed it: nothing is built or imported."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from netopt_cli import seeds
from netopt_cli.components import check_targets, check_value
from netopt_cli.config_errors import bounded, readable_errors
from netopt_cli.config_keys import STAGES
from netopt_cli.contracts import NAMED_GROUPS
from netopt_cli.errors import ConfigError, did_you_mean
from netopt_cli.export import formats

_SECTIONS = ("arch", "task", "data", "train", "target", STAGES)
_OPTIONAL_SECTIONS = ("robustness", "tracking")
_ROOT_KEYS = {
    "seed": seeds.Seed,
    "seeds": seeds.Requested,
    "deterministic": bool,
    "control": bool,
    "export": formats.Requested,
    "checkpoint_seconds": Annotated[float, Field(gt=0)],
    "cache": bool,
    "cache_max_megabytes": Annotated[int, Field(ge=1)],
}
_NAME = re.compile(r"[A-Za-z0-9_][\w-]{0,63}", re.ASCII)


def check_job(config: DictConfig, allow: Collection[str] = ()) -> None:
    """Checks a composed configuration, without Hydra's node: nothing is built or imported.

    Raises:
        ConfigError: For missing values, unknown root keys, broken interpolations, a `_target_`
            that may not be named, a section that is none.
        MissingExtraError: For a format of `export` whose packages are not installed.
    """
    with bounded(), readable_errors():
        missing = sorted(OmegaConf.missing_keys(config))
        plain = OmegaConf.to_container(config, resolve=not missing)
    if missing:
        raise ConfigError(f"{missing[0]} must be given: {missing[0]}=VALUE")
    assert isinstance(plain, dict)
    known = [*_SECTIONS, *_OPTIONAL_SECTIONS, *_ROOT_KEYS]
    for key in map(str, plain):
        if key not in known:
            raise ConfigError(f"unknown key '{key}'.{did_you_mean(key, known)}")
    for key, annotation in _ROOT_KEYS.items():
        if key in plain:
            check_value(plain[key], annotation, key)
    formats.further(plain.get("export", ()))
    for key in (*_SECTIONS, *(key for key in _OPTIONAL_SECTIONS if key in plain)):
        is_named = key in NAMED_GROUPS
        components = plain.get(key) if is_named else {key: plain.get(key)}
        if not isinstance(components, dict):
            raise ConfigError(
                f"{key} must hold the {NAMED_GROUPS[key]}s. Received: {key}={components}"
            )
        for name, section in components.items():
            if is_named and not _NAME.fullmatch(name):
                raise ConfigError(
                    f"the name of a {NAMED_GROUPS[key]} must be letters, digits, _ and -, 64 at "
                    f"most: it may name a directory. Received: {name!r}"
                )
            where = f"{key}.{name}" if is_named else key
            if not isinstance(section, dict) or "_target_" not in section:
                drop = f", or drop its settings by '~{where}'" if is_named else ""
                raise ConfigError(
                    f"{where} is not a component: it has no _target_; choose one by "
                    f"{key}={f'[{name}]' if is_named else 'NAME'}{drop}"
                )
    check_targets(plain, allow)
    if seeds.listed(plain.get("seeds")) and is_of_workers(plain["target"]):
        raise ConfigError(
            "seeds does not go with target=multi_worker, whose workers meet once in a process: "
            "start a run for each seed, seed=0, seed=1, …"
        )


def is_of_workers(target: Mapping[str, Any]) -> bool:
    """Whether a run on this target has several processes."""
    return str(target["_target_"]).startswith("netopt_cli.target.multi_worker.")
