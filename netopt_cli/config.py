"""The configuration of a run: overrides in any accepted spelling to a checked DictConfig.

Hydra composes; this module makes its input regular before (`+arch=cnn` is `arch=cnn`) and its
errors readable after. No TensorFlow is imported.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from netopt_cli import catalog
from netopt_cli.config_errors import bounded, hydra_errors, readable_errors
from netopt_cli.config_keys import chosen_groups, is_open, lookup, nearest_key, plain_tree
from netopt_cli.contracts import NAMED_GROUPS
from netopt_cli.errors import ConfigError, did_you_mean
from netopt_cli.hydra_seams import check_hydra, check_search_path, prepare_hydra, refuse_swept
from netopt_cli.job_check import check_job
from netopt_cli.overrides import (
    SEARCH_PATH,
    all_choices,
    alternatives,
    refuse_seed_and_seeds,
    refuse_sweeps,
    refuse_too_much,
    refuse_two_lists,
    search_path,
    several,
)

PRIMARY = "run"


def compose(
    overrides: Sequence[str] = (),
    *,
    config_dir: str | Path | None = None,
    config_name: str = PRIMARY,
    allow: Collection[str] = (),
) -> DictConfig:
    """Composes and checks the configuration of one run, without Hydra's own node.

    Args:
        overrides: As on the command line: `["+arch=cnn", "opt=[prune,quantize]"]`.
        config_dir: A folder of the user's configs, searched before netopt's.
        config_name: The primary config.
        allow: Packages that a `_target_` may name besides netopt's and Keras'.

    Raises:
        ConfigError: For anything wrong, with the nearest valid word.
    """
    with composer(config_dir=config_dir, config_name=config_name) as composing:
        config = composing.compose(composing.normalise(overrides))
        composing.check(config, allow)
        with open_dict(config):
            del config["hydra"]
        return config


@contextmanager
def composer(
    *, config_dir: str | Path | None = None, config_name: str = PRIMARY
) -> Iterator[Composer]:
    """Sets Hydra up over netopt's configs and the user's, and takes it down at the end."""
    *own, shipped = catalog.config_folders(config_dir)
    places = create_config_search_path(f"file://{shipped}")
    for folder in own:
        places.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="main"))
    prepare_hydra()
    version.setbase("1.3")
    GlobalHydra.instance().clear()
    hydra = Hydra.create_main_hydra2("netopt", places)
    try:
        with bounded(), readable_errors():
            check_search_path(hydra.config_loader.repository.load_config(config_name))
        with readable_errors():
            yield Composer(hydra, config_name, [*own, shipped])
    finally:
        GlobalHydra.instance().clear()


class Composer:
    """Hydra, with regular input and every error of composition as a ConfigError.

    Attributes:
        hydra: Hydra itself, for `run`, `multirun`, `show_cfg`, `show_info`, `hydra_help`.
        config_name: The primary config.
    """

    def __init__(self, hydra: Hydra, config_name: str, folders: Sequence[Path]) -> None:
        self.hydra = hydra
        self.config_name = config_name
        self._parser = OverridesParser.create(config_loader=hydra.config_loader)
        self._choices = all_choices(folders)
        self._folders = folders

    def compose(self, overrides: Sequence[str], *, multirun: bool = False) -> DictConfig:
        """Composes normalised overrides; the result has Hydra's node."""
        mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        with hydra_errors():
            return self.hydra.compose_config(self.config_name, list(overrides), mode)

    def check(self, config: DictConfig, allow: Collection[str] = ()) -> None:
        """Checks a composed configuration with Hydra's node; see `check_job`, `check_hydra`."""
        with bounded(), readable_errors():
            check_hydra(config, allow)
        job = config.copy()
        with open_dict(job):
            del job["hydra"]
        check_job(job, allow)

    def cells(self, overrides: Sequence[str], *, values: bool = False) -> list[list[str]]:
        """The overrides of single runs that show every choice of a sweep.

        Groups are multiplied out; of a swept value, which changes no key, the first is taken.

        Args:
            values: Multiplies out the values too, so that every run of the sweep is shown.

        Raises:
            ConfigError: With `values`, for a sweep whose values a search chooses.
        """
        choices: list[list[str]] = []
        for override in map(self._parse, overrides):
            key = override.get_key_element()
            if not override.is_sweep_override():
                choices.append([str(override.input_line)])
                continue
            refuse_swept(key)
            if override.is_discrete_sweep():
                swept = [f"{key}={value}" for value in override.sweep_string_iterator()]
                choices.append(swept if values or self._is_group(override) else swept[:1])
            elif values:
                raise ConfigError(
                    f"the values of {override.input_line} are known only as the search goes on: "
                    f"give {key} one value, or several with commas"
                )
        return [list(cell) for cell in itertools.product(*choices)]

    def normalise(self, overrides: Sequence[str], *, multirun: bool = False) -> list[str]:
        """Rewrites overrides into the one spelling that Hydra takes, and checks their keys.

        `+` goes where the defaults list has the group; a single stage becomes a list; the value of
        an arch inside a stage (`opt.distill.teacher=vgg`) becomes a choice.

        Raises:
            ConfigError: For bad syntax, unknown groups, choices and keys, and sweeps without -m.
        """
        parsed = [self._parse(line) for line in overrides]
        if not multirun:
            refuse_sweeps(parsed)
        refuse_two_lists(parsed)
        self._choices = all_choices([*self._folders, *search_path(parsed)])
        done: dict[int, list[str]] = {}
        packaged, values = [], []
        for index, override in enumerate(parsed):
            key = override.key_or_group
            if override.is_delete() or key.startswith("hydra/") or key == SEARCH_PATH:
                done[index] = [str(override.input_line)]
            elif not self._is_group(override):
                values.append(index)
            elif override.package:
                packaged.append(index)
            else:
                done[index] = self._choose(override)

        configs = self._compose_cells(done)
        for index in packaged:
            override = parsed[index]
            self._refuse_list(override)
            group = f"{override.key_or_group}@{override.package}"
            plus = "" if any(group in chosen_groups(config) for config in configs) else "+"
            done[index] = [f"{plus}{group}={override.get_value_string()}"]
            configs = self._compose_cells(done)
        given = {override.key_or_group for override in parsed}
        for index in values:
            chosen = self._choose_inside(parsed[index], configs, given)
            if chosen:
                done[index] = chosen
        if any(index in done for index in values):
            configs = self._compose_cells(done)
        for index in values:
            if index not in done:
                plus = self._check_key(parsed[index], configs)
                key = parsed[index].key_or_group
                done[index] = [f"{plus}{key}={parsed[index].get_value_string()}"]
        refuse_seed_and_seeds(parsed, [config.get("seeds") for config in configs])
        return [line for index in sorted(done) for line in done[index]]

    def sweep_of_files(self, config: DictConfig, overrides: Sequence[str]) -> list[str]:
        """The overrides of `hydra.sweeper.params`, in the config, that the command line leaves."""
        sweeper = config.hydra.sweeper
        if "BasicSweeper" not in sweeper.get("_target_", "") or not sweeper.get("params"):
            return []
        given = {self._parse(line).key_or_group for line in overrides}
        return [
            f"{key}={value}"
            for key, value in sweeper.params.items()
            if str(key).lstrip("+") not in given
        ]

    def _parse(self, line: str) -> Override:
        refuse_too_much(line)
        try:
            with bounded():
                override = self._parser.parse_overrides([line])[0]
        except OverrideParseException as error:
            if "=" in line:
                raise ConfigError(
                    f"cannot read the override {line}: check its brackets and quotes; a value with "
                    "special characters is quoted twice: 'key=\"value\"'"
                ) from error
            groups = [group for group, names in self._choices.items() if line in names]
            hint = (
                f" Did you mean '{groups[0]}={line}'?"
                if groups
                else " Write key=value, without spaces."
            )
            raise ConfigError(f"'{line}' is not an override.{hint}") from error
        return override

    def _is_group(self, override: Override) -> bool:
        """True when the override chooses a config file; `train={epochs: 3}` sets values."""
        value = None if override.is_sweep_override() else override.value()
        return override.key_or_group in self._choices and not isinstance(value, dict)

    def _choose(self, override: Override) -> list[str]:
        group = override.key_or_group
        values = alternatives(override)
        if group in NAMED_GROUPS:
            lists = [several(group, value) for value in values]
            for name in itertools.chain(*lists):
                if name not in self._choices[group]:
                    self._refuse_choice(group, name)
            return [f"{group}={','.join('[' + ','.join(names) + ']' for names in lists)}"]
        if values == [None]:
            return []
        self._refuse_list(override)
        for value in values:
            if value not in self._choices[group]:
                self._refuse_choice(group, str(value))
        return [f"{group}={override.get_value_string()}"]

    def _refuse_list(self, override: Override) -> None:
        for value in alternatives(override):
            if isinstance(value, list):
                key = str(override.get_key_element()).lstrip("+~")
                raise ConfigError(
                    f"{key} takes one choice. Received: {override.input_line}; to run one after "
                    f"the other: -m {key}={','.join(map(str, value))}"
                )

    def _choose_inside(
        self, override: Override, configs: Sequence[DictConfig], given: Collection[str]
    ) -> list[str]:
        """A choice of a group inside a section, such as the teacher; [] for any other key.

        Where the section also has a place for several, `teachers`, a list is taken: its first one
        is the teacher, the others go there.
        """
        key = override.key_or_group
        groups = [
            choice.partition("@")[0]
            for config in configs
            for choice in chosen_groups(config)
            if choice.endswith(f"@{key}")
        ]
        names = alternatives(override)
        is_list = len(names) == 1 and isinstance(names[0], list) and bool(names[0])
        if groups and is_list and any(lookup(config, f"{key}s")[0] for config in configs):
            return self._choose_several(key, groups[0], names[0], configs, given)
        if not groups or not all(isinstance(name, str) for name in names):
            return []
        value = override.get_value_string()
        files = [self._is_network_file(name, groups[0]) for name in names]
        if not any(files):
            return [f"{groups[0]}@{key}={value}"]
        if not all(files):
            raise ConfigError(f"{key} cannot sweep over names and files. Received: {key}={value}")
        chosen = [f"{groups[0]}@{key}=keras_model", f"{key}.path={value}"]
        epochs = f"{key}_epochs"
        if epochs not in given and any(lookup(config, epochs)[0] for config in configs):
            # A network from a file is used as it is, which asks for a head that was trained.
            chosen += [f"{epochs}=0", f"{key}.head=keep"]
        return chosen

    def _choose_several(
        self,
        key: str,
        group: str,
        names: list[Any],
        configs: Sequence[DictConfig],
        given: Collection[str],
    ) -> list[str]:
        """The choices of a list: names of the group, or files, but not both."""
        if not all(isinstance(name, str) for name in names):
            raise ConfigError(f"{key} takes names or files. Received: {key}={names}")
        files = [self._is_network_file(name, group) for name in names]
        if any(files) and not all(files):
            raise ConfigError(
                f"{key} cannot mix names, which are trained, and files, which are not. "
                f"Received: {key}=[{','.join(names)}]"
            )
        chosen = []
        for number, name in enumerate(names, start=1):
            place = key if number == 1 else f"{key}s.number_{number}"
            plus = "" if number == 1 else "+"
            if not files[0]:
                chosen.append(f"{plus}{group}@{place}={name}")
                continue
            quoted = name.replace("'", "\\'")
            chosen += [
                f"{plus}{group}@{place}=keras_model",
                f"{place}.path='{quoted}'",
                f"{place}.head=keep",
            ]
        epochs = f"{key}_epochs"
        if files[0] and epochs not in given and any(lookup(c, epochs)[0] for c in configs):
            chosen.append(f"{epochs}=0")
        return chosen

    def _is_network_file(self, name: str, group: str) -> bool:
        """True for the path of a network, or of a run that left one."""
        path = Path(name)
        return path.suffix in (".keras", ".h5") or (
            name not in self._choices[group] and path.expanduser().is_dir()
        )

    def _compose_cells(self, done: dict[int, list[str]]) -> list[DictConfig]:
        lines = [line for index in sorted(done) for line in done[index]]
        return [self.compose(cell) for cell in self.cells(lines)]

    def _check_key(self, override: Override, configs: Sequence[DictConfig]) -> str:
        """Returns the prefix that the key needs: "+" for a new one in an open section."""
        key = override.key_or_group
        if override.is_hydra_override() and (override.is_add() or override.is_force_add()):
            return "++" if override.is_force_add() else "+"  # Hydra's node has its own schema
        prefix = ""
        for config in configs:
            exists, parent, value = lookup(config, key)
            if not exists:
                added = override.is_add() or override.is_force_add()
                if not (added and is_open(parent, key)):
                    raise ConfigError(self._unknown_key(key, config))
                prefix = "++"
            elif isinstance(value, dict) and "_target_" in value:
                new = alternatives(override)
                if not all(isinstance(item, dict) for item in new):
                    keys = [f"{key}.{name}" for name in value if name != "_target_"]
                    raise ConfigError(
                        f"{key} is a section; set one of its keys: {', '.join(keys)}. "
                        f"Received: {override.input_line}"
                    )
        return prefix

    def _unknown_key(self, key: str, config: DictConfig) -> str:
        group, _, rest = key.partition(".")
        name = rest.partition(".")[0]
        tree = plain_tree(config)
        if group in NAMED_GROUPS and name in self._choices[group]:
            chosen = list(tree.get(group) or {})
            if name not in chosen:
                return (
                    f"{key}: '{name}' is not in {group}=[{','.join(chosen) or 'none'}]; "
                    f"add it: {group}=[{','.join([*chosen, name])}]"
                )
        return f"unknown key '{key}'.{nearest_key(key, tree, list(self._choices))}"

    def _refuse_choice(self, group: str, name: str) -> None:
        raise ConfigError(f"unknown {group} '{name}'.{did_you_mean(name, self._choices[group])}")
