"""From a YAML node with `_target_` to the class or function it names, bound to its arguments.

The arguments are checked against the signature before anything is called: unknown and missing
names, types, ranges and choices. What may be named is an allow-list, for a config from a stranger
must be safe to run: netopt's own components, a few modules of Keras, and what the user allows.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import re
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, is_dataclass
from types import SimpleNamespace
from typing import Any

from omegaconf import OmegaConf
from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from netopt_cli.contracts import NAMED_GROUPS
from netopt_cli.errors import ArchError, ConfigError, InputError, did_you_mean

_PACKAGES = {
    "arch": "netopt_cli.arch",
    "data": "netopt_cli.data",
    "opt": "netopt_cli.opt",
    "robustness": "netopt_cli.measure.robustness",
    "target": "netopt_cli.target",
    "task": "netopt_cli.task",
    "tracking": "netopt_cli.tracking",
    "train": "netopt_cli.engine.settings",
}
_KERAS_MODULES = (
    "activations",
    "applications",
    "constraints",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "optimizers",
    "regularizers",
)
_KERAS_DANGEROUS = {"deserialize", "get", "Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer"}


@dataclass(frozen=True)
class Bound:
    """A component with its checked arguments; called with what only the run knows.

    Attributes:
        target: The class or function.
        arguments: By name.
        where: Key of the node, for messages: `opt.distill.teacher`.
    """

    target: Callable[..., Any]
    arguments: Mapping[str, Any]
    where: str

    def __call__(self, **runtime: Any) -> Any:
        """Calls the component.

        Raises:
            ConfigError: When an argument without default is neither in the YAML nor in `runtime`.
            InputError: With the key in front, for a ValueError of the component.
        ArchError: Of the arch, with its keys as they are here.
        """
        parameters = _parameters(self.target)
        given = {*self.arguments, *runtime}
        for name, parameter in parameters.items():
            if parameter.default is parameter.empty and name not in given:
                raise ConfigError(f"{self.where}.{name} must be given")
        refused = [] if _takes_any_name(self.target) else sorted(runtime.keys() - parameters.keys())
        if refused:
            raise InputError(
                f"{self.where}: {_name(self.target)} must take the argument '{refused[0]}', "
                "which the run gives it"
            )
        try:
            return self.target(**self.arguments, **runtime)
        except ValueError as error:
            raise InputError(f"{self.where}: {error}") from error
        except ArchError as error:
            if self.where == "arch":
                raise
            raise ArchError(_elsewhere(str(error), self.where)) from error


def _elsewhere(message: str, where: str) -> str:
    """What an arch says of its keys, where it is that of a teacher or a peer."""
    moved = re.sub(r"\barch\.(?=\w)", f"{where}.", message)
    return moved if where in moved else f"{where}: {moved}"


def build(
    node: Any, *, allow: Collection[str] = (), where: str, partial: bool = False, **runtime: Any
) -> Any:
    """Binds `node` and calls it.

    Args:
        node: A mapping (DictConfig or dict) with `_target_` and its arguments. An argument that
            has a `_target_` itself is passed as a `Bound`, to be called later.
        allow: Packages that may be named besides netopt's and Keras'.
        where: Key of the node, for messages and to know its group: `arch`, `opt.prune`.
        partial: Returns the `Bound` instead of calling it; all that can be checked has been.
        runtime: Arguments that the run gives; the YAML may not.

    Raises:
        ConfigError: Naming the key, the rule and what was received.
        InputError: With the key in front, for a ValueError of the component.
    """
    bound = _bind(node, allow, where, frozenset(runtime))
    return bound if partial else bound(**runtime)


def _bind(node: Any, allow: Collection[str], where: str, runtime: Set[str] = frozenset()) -> Bound:
    settings = _plain(node, where)
    name = settings.pop("_target_", None)
    if name is None:
        raise ConfigError(f"{where}._target_ must be given: what the section configures")
    _check_target(name, where, allow)
    target = load_target(name, where)
    known = _parameters(target).keys() - runtime
    annotations = _annotations(target)
    arguments = {}
    for argument, value in settings.items():
        key = f"{where}.{argument}"
        if argument in ("_args_", "_convert_", "_partial_", "_recursive_"):
            raise ConfigError(f"{key} is not supported: name the arguments of {name}")
        if argument in runtime:
            raise ConfigError(f"{key} cannot be set: the run gives it")
        if argument not in known and not _takes_any_name(target):
            raise ConfigError(f"unknown key '{key}'.{did_you_mean(argument, known)}")
        nested = _bind_nested(value, allow, key)
        if nested is value and argument in annotations:
            arguments[argument] = check_value(value, _evaluated(annotations[argument], key), key)
        else:
            arguments[argument] = nested
    return Bound(target, arguments, where)


def check_targets(config: Any, allow: Collection[str] = ()) -> None:
    """Checks every `_target_` of a whole configuration by its name; imports nothing.

    Raises:
        ConfigError: For the first one that may not be named, with its key.
    """
    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    for where, name in _targets(plain, ""):
        _check_target(name, where, allow)


def check_value(value: Any, annotation: Any, key: str) -> Any:
    """Returns `value` as `annotation` wants it (a list becomes a tuple).

    The rules are those of JSON: "3" and true are no integers, 3 is a float.

    Raises:
        ConfigError: `key must be < 1. Received: key=1.2`.
        InputError: When `annotation` has no form in YAML.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key} must be finite. Received: {key}={value}")
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise InputError(
            f"{key} cannot be set in YAML: there is no way to write {annotation}"
        ) from error
    try:
        return adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ConfigError(_explain(error, value, key)) from error


def _plain(node: Any, where: str) -> dict[str, Any]:
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{where} must be a section with _target_. Received: {where}={plain}")
    return dict(plain)


def _bind_nested(value: Any, allow: Collection[str], key: str) -> Any:
    """Binds every node inside `value`; returns `value` itself when there is none."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            return _bind(value, allow, key)
        bound: Any = {name: _bind_nested(v, allow, f"{key}.{name}") for name, v in value.items()}
        return bound if any(bound[name] is not value[name] for name in value) else value
    if isinstance(value, Sequence) and not isinstance(value, str):
        bound = [_bind_nested(v, allow, f"{key}[{index}]") for index, v in enumerate(value)]
        return (
            bound if any(new is not old for new, old in zip(bound, value, strict=True)) else value
        )
    return value


# Which targets may be named


def _targets(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "_target_":
                yield where, inner
            yield from _targets(inner, f"{where}.{name}" if where else str(name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, inner in enumerate(value):
            yield from _targets(inner, f"{where}[{index}]")


def _check_target(name: Any, where: str, allow: Collection[str]) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name):
        raise ConfigError(f"{where}._target_ must be a dotted name. Received: {name!r}")
    if any(name.startswith(f"{package}.") for package in allow) or _is_safe_keras(name):
        return
    packages = _packages_for(where)
    is_private = name.rpartition(".")[2].startswith("_")
    if is_private or not any(name.startswith(f"{package}.") for package in packages):
        raise ConfigError(
            f"{where}._target_ may not be '{name}': it must be in {' or '.join(packages)}, or in a "
            "package that you trust and name with --allow PACKAGE"
        )


def _packages_for(where: str) -> list[str]:
    """The component of a group is of its package; one inside another is an arch or a data set."""
    group, *path = where.split(".")
    is_component = len(path) == (1 if group in NAMED_GROUPS else 0)
    if is_component and group in _PACKAGES:
        return [_PACKAGES[group]]
    return [_PACKAGES["arch"], _PACKAGES["data"]]


def _is_safe_keras(name: str) -> bool:
    """True for what makes layers and the like: nothing that reads a file or runs a given code."""
    root, *path = name.split(".")
    if root != "keras" or len(path) < 2 or path[0] not in _KERAS_MODULES:
        return False
    return len(path) == (3 if path[0] == "applications" and path[1].islower() else 2) and not (
        _KERAS_DANGEROUS & set(path)
    )


def import_packages(allow: Collection[str]) -> None:
    """Imports the packages that the user allows, whose layers Keras then finds in a file.

    Raises:
        ConfigError: There is no such package.
        InputError: A package that it needs is not installed.
    """
    for package in allow:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name and f"{package}.".startswith(f"{error.name}."):
                raise ConfigError(
                    f"--allow {package}: there is no package '{error.name}' here or installed"
                ) from error
            raise InputError(
                f"--allow {package} needs the package '{error.name}', which is not installed"
            ) from error


def load_target(name: str, where: str) -> Callable[..., Any]:
    """Imports a target that may be named; it must be defined in the package it is named in.

    Raises:
        ConfigError: There is no such class or function.
        InputError: A package that it needs is not installed.
    """
    module_name, _, attribute = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{where}._target_: there is no module '{error.name}'. Received: {name}"
            ) from error
        raise InputError(
            f"{where}._target_: '{module_name}' needs the package '{error.name}', "
            "which is not installed"
        ) from error
    found = vars(module).get(attribute)
    if found is None:
        near = did_you_mean(attribute, [n for n in vars(module) if not n.startswith("_")])
        raise ConfigError(f"{where}._target_: '{module_name}' has no '{attribute}'.{near}")
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        raise ConfigError(f"{where}._target_ must be a class or a function. Received: {name}")
    home = found.__module__ or ""
    ours = module_name.startswith("netopt_cli.")
    if home.partition(".")[0] != name.partition(".")[0] or (ours and home != module_name):
        raise ConfigError(f"{where}._target_: '{attribute}' is not defined in '{module_name}'")
    return found


# The signature of a target


def _name(target: Callable[..., Any]) -> str:
    return f"{target.__module__}.{target.__qualname__}"


def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    every = inspect.signature(target).parameters
    return {name: parameter for name, parameter in every.items() if parameter.kind in named}


def _takes_any_name(target: Callable[..., Any]) -> bool:
    every = inspect.signature(target).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in every)


def _annotations(target: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    """The annotations by name, each evaluated only when it is asked for.

    A signature may name types that are imported for the type checker alone; those are of arguments
    that the run gives, never of those in the YAML.
    """
    if is_dataclass(target) and inspect.isclass(target):
        found: dict[str, Callable[[], Any]] = {}
        for base in reversed(target.__mro__):
            namespace = vars(sys.modules[base.__module__])
            found |= _lazily(vars(base).get("__annotations__", {}), namespace)
        return found
    function: Any = target.__init__ if inspect.isclass(target) else inspect.unwrap(target)
    if not inspect.isfunction(function):
        return {}
    return _lazily(function.__annotations__, function.__globals__)


def _evaluated(annotation: Callable[[], Any], key: str) -> Any:
    try:
        return annotation()
    except NameError as error:
        raise InputError(
            f"{key} cannot be checked: its type names '{error.name}', which its module imports "
            "for type checkers alone"
        ) from error


def _lazily(
    annotations: Mapping[str, Any], namespace: dict[str, Any]
) -> dict[str, Callable[[], Any]]:
    def evaluate(name: str) -> Any:
        only = SimpleNamespace(__annotations__={name: annotations[name]})
        return typing.get_type_hints(only, globalns=namespace, include_extras=True)[name]

    return {name: lambda name=name: evaluate(name) for name in annotations}  # type: ignore[misc]


# What a value breaks, in words


_RULES = {
    "greater_than": "> {gt}",
    "greater_than_equal": ">= {ge}",
    "less_than": "< {lt}",
    "less_than_equal": "<= {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a string",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "none_required": "null",
    "finite_number": "finite",
    "missing": "given",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
}


def _explain(error: ValidationError, value: Any, key: str) -> str:
    """One sentence for all that pydantic found: a value of a union breaks a rule of each member."""
    found = error.errors(include_url=False)
    first = found[0]
    element = "".join(f"[{part}]" for part in first["loc"] if isinstance(part, int))
    rules = []
    for each in found:
        template = _RULES.get(each["type"])
        limits = {name: _number(limit) for name, limit in each.get("ctx", {}).items()}
        rules.append(template.format(**limits) if template else each["msg"])
    words = re.findall(r"'([^']*)'", " ".join(rules))
    near = did_you_mean(value, words) if isinstance(value, str) and words else ""
    received = value if isinstance(value, str) else json.dumps(value)
    return (
        f"{key}{element} must be {' or '.join(dict.fromkeys(rules))}. Received: {key}={received}"
        + (f".{near}" if near.startswith(" Did") else "")
    )


def _number(limit: Any) -> Any:
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit
