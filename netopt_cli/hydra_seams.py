"""Where Hydra itself starts code, reads the environment or writes, and what a config may do there.

Who writes the command line may do anything; a config file, which may be a stranger's, names no code
but plug-ins of Hydra, writes below the current directory, and reads no secrets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from netopt_cli import catalog
from netopt_cli.components import load_target
from netopt_cli.errors import ConfigError
from netopt_cli.yaml_limits import read_text

_KINDS = {"launcher": Launcher, "sweeper": Sweeper, "callbacks": Callback}
_PLUGINS = ("hydra._internal.core_plugins.", "hydra.experimental.", "hydra_plugins.")
_SECRET = re.compile(r"secret|token|passw|credential|private|(api|access)_?key|auth", re.IGNORECASE)
_NO_LOGGING = {"version", "root", "disable_existing_loggers"}
_LONGEST_NAME = 200
"""Characters of a directory's name, of the 255 bytes that file systems have."""
_ONLY_NUMBERED = "${hydra.job.num}"
"""Where Hydra itself puts the cells of a sweep."""


class CheckedFileSource(FileConfigSource):
    """The YAML files of a folder, none of them read that is too much, and none outside of it."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path, self._normalize_file_name(config_path))
        if path.is_file():
            if not path.resolve().is_relative_to(Path(self.path).resolve()):
                raise ConfigError(f"a config must be in {self.path}. Received: {config_path}")
            read_text(path)
        return super().load_config(config_path)


def prepare_hydra() -> None:
    """Makes Hydra read files by `CheckedFileSource`, and registers what interpolations call."""
    SourcesRegistry.instance().types["file"] = CheckedFileSource
    OmegaConf.register_new_resolver("oc.env", _environment, replace=True)
    OmegaConf.register_new_resolver(
        "stages", lambda stages: "+".join(stages) or "none", replace=True
    )
    OmegaConf.register_new_resolver("folder", _folder, replace=True)
    OmegaConf.register_new_resolver(
        "seed_or_seeds",
        lambda seed, seeds: f"seed{seed}" if seeds is None else "seeds",
        replace=True,
    )


def check_search_path(primary: ConfigResult | None) -> None:
    """Refuses a search path of the primary config that would import something.

    Raises:
        ConfigError: For `pkg://` and the like.
    """
    if primary is None or not isinstance(primary.config, DictConfig):
        return
    for entry in OmegaConf.select(primary.config, "hydra.searchpath") or ():
        scheme = str(entry).partition("://")[0] if "://" in str(entry) else "file"
        if scheme != "file":
            raise ConfigError(f"hydra.searchpath takes directories. Received: {entry}")


def check_hydra(config: DictConfig, allow: Collection[str] = ()) -> None:
    """Checks Hydra's own node and makes it the one in force.

    Args:
        allow: Packages that a plug-in may be in besides Hydra's.

    Raises:
        ConfigError: For a plug-in that may not be named, a logging set-up, an environment, a
            directory that leads out.
    """
    HydraConfig.instance().set_config(config)
    node = config.hydra
    plain = OmegaConf.to_container(node, resolve=False)
    assert isinstance(plain, dict)
    for key, kind in _KINDS.items():
        resolved = OmegaConf.to_container(node[key], resolve=True) if node.get(key) else {}
        assert isinstance(resolved, dict)
        components = resolved.values() if key == "callbacks" else [resolved]
        for component in components:
            _check_plugin(component, kind, f"hydra.{key}", allow)
    for key in ("params", "search_space"):
        for name in (plain.get("sweeper") or {}).get(key) or ():
            refuse_swept(str(name))
    for key in ("job_logging", "hydra_logging"):
        logging = plain[key]
        is_off = isinstance(logging, dict) and not logging.get("root")
        if logging is not None and not (is_off and logging.keys() <= _NO_LOGGING):
            raise ConfigError(f"hydra/{key} is not supported: a run writes its own run.log")
    if plain["job"].get("env_set"):
        raise ConfigError("hydra.job.env_set is not supported: set the variables in the shell")
    folder = plain.get("output_subdir")
    if folder is not None and (folder in ("", ".", "..") or re.search(r"[/\\$]", folder)):
        raise ConfigError(
            f"hydra.output_subdir must be the name of a folder in the run. Received: {folder}"
        )


def refuse_swept(key: str) -> None:
    """Refuses a sweep over Hydra's own settings: a cell would bring its own past the checks.

    Raises:
        ConfigError: When `key` is one.
    """
    if re.split(r"[./@]", key.lstrip("+~"), maxsplit=1)[0] == "hydra":
        raise ConfigError(f"a sweep cannot vary Hydra's own settings. Received: {key}")


def check_own_place(path: Path, key: str) -> None:
    """Checks a directory that no command line named.

    Raises:
        ConfigError: When it is not below the current directory.
    """
    # As it is written: a link in the current directory, `runs` on a larger disk, is the user's.
    if not Path(os.path.abspath(path)).is_relative_to(Path.cwd()):  # noqa: PTH100
        raise ConfigError(
            f"{key} of a config must be below the current directory; to choose another place, give "
            f"it on the command line: {key}=DIR. Received: {path}"
        )


def check_cell_place(config: DictConfig) -> None:
    """Checks where a config puts the cells of a sweep, which no command line has said.

    Raises:
        ConfigError: When it could lead out of the directory of the sweep.
    """
    template = OmegaConf.to_container(config.hydra.sweep, resolve=False)["subdir"]  # type: ignore[index,call-overload]
    shipped = yaml.safe_load((catalog.shipped_configs() / "run.yaml").read_text(encoding="utf-8"))
    if template in (shipped["hydra"]["sweep"]["subdir"], _ONLY_NUMBERED):
        return
    place = PurePath(str(template))
    if "${" in str(template) or place.is_absolute() or ".." in place.parts:
        raise ConfigError(
            "hydra.sweep.subdir of a config must be a relative path without interpolations; "
            f"to choose another, give it on the command line. Received: {template}"
        )


def _check_plugin(component: Any, kind: type, where: str, allow: Collection[str]) -> None:
    if not component:
        return
    trusted = tuple(f"{package}." for package in allow)
    if not isinstance(component, Mapping) or "_target_" not in component:
        raise ConfigError(f"{where} must be a plug-in, with _target_. Received: {component}")
    name, *inside = map(str, _target_names(component))
    for each, prefixes in [(name, (*_PLUGINS, *trusted)), *((word, trusted) for word in inside)]:
        if not each.startswith(prefixes or "\0"):
            raise ConfigError(
                f"{where} may not name '{each}': it is no plug-in of Hydra, nor in a package that "
                "you trust and name with --allow PACKAGE"
            )
        load_target(each, where)
    found = load_target(name, where)
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ConfigError(f"{where} may not name '{name}': it is no {kind.__name__} of Hydra")


def _target_names(value: Any) -> Iterator[Any]:
    """The names in a component, its own first."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield value["_target_"]
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _target_names(inner)


def _environment(name: str, *default: Any) -> Any:
    """`${oc.env:NAME}`, but for secrets: what it gives is written to the record and the logs."""
    if _SECRET.search(name):
        raise ConfigError(
            f"a config may not read the variable {name}, which looks like a secret: the record "
            "of the run would show it"
        )
    return oc.env(name, *default)


def _folder(text: Any) -> str:
    """`${folder:TEXT}`: a text as the name of one directory."""
    name = re.sub(r"[^\w.+=,@-]", "_", str(text))
    return name[:_LONGEST_NAME].strip(".") or "_"
