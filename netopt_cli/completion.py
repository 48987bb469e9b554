"""What may end a command line, and the scripts that ask for it.

The scripts hand over the whole line up to the cursor, for bash takes words apart at `=`. Everything
is read from the config files; neither Hydra nor TensorFlow is imported.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from netopt_cli import catalog
from netopt_cli.command_table import COMMANDS
from netopt_cli.contracts import NAMED_GROUPS
from netopt_cli.errors import ConfigError
from netopt_cli.export.formats import FORMATS

_BASH = """\
_netopt() {
    local line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##* }"
    local kept="${word%"${word##*[=:]}"}"   # bash replaces only what follows = or :
    local IFS=$'\\n'
    COMPREPLY=($(netopt __complete "$line" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$kept"}")
    if [[ ${COMPREPLY[0]-} == *[=.] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _netopt netopt
"""

_ZSH = """\
#compdef netopt
_netopt() {
    local -a found open closed
    found=("${(@f)$(netopt __complete "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}")
    open=("${(@M)found:#*[=.]}")
    closed=("${(@)found:#*[=.]}")
    (( $#open )) && compadd -Q -S '' -- "${open[@]}"
    (( $#closed )) && compadd -Q -- "${closed[@]}"
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _netopt "$@"
else
    compdef _netopt netopt
fi
"""

_FISH = """\
complete -c netopt -f -a '(netopt __complete (commandline -cp | string collect) 2>/dev/null)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def candidates(line: str) -> list[str]:
    """The words that may replace the last one of `line`, which is empty after a space.

    Those ending in `=` or `.` want more behind them.
    """
    before = line.split()
    word = "" if not before or line[-1].isspace() else before.pop()
    words = [each.lstrip("'\"") for each in before[1:]]
    word = word.lstrip("'\"")
    if not words:
        commands = [name for name, command in COMMANDS.items() if command.help]
        return _starting(word, [*commands, "--help", "--version"])
    name, *words = words
    if name not in COMMANDS:
        return []
    if word.startswith("-"):
        options: list[str] = COMMANDS[name].load().parser().options()
        return _starting(word, [option for option in options if option.startswith("--")])
    try:
        return _starting(word, list(_arguments(name, words, word)))
    except ConfigError:  # of a --config-dir that is not written out yet
        return []


def _starting(word: str, choices: list[str]) -> list[str]:
    return [choice for choice in choices if choice.startswith(word)]


def _arguments(name: str, words: list[str], word: str) -> Iterator[str]:
    folders = catalog.config_folders(_after(words, "--config-dir", "-cd"))
    match name:
        case "list":
            yield from catalog.groups(folders)
        case "show":
            for group in catalog.groups(folders):
                yield from (f"{group}/{choice}" for choice in catalog.choices(group, folders))
        case "completion":
            yield from SCRIPTS
        case "train" | "sensitivity":
            yield from _overrides(words, word, folders)


def _after(words: list[str], *options: str) -> str | None:
    for option, value in itertools.pairwise(words):
        if option in options:
            return value
    return None


def _overrides(words: list[str], word: str, folders: Sequence[Path]) -> Iterator[str]:
    plus = word[: len(word) - len(word.lstrip("+"))]
    key, equals, value = word[len(plus) :].partition("=")
    if equals:
        cut = max(value.rfind(","), value.rfind("[")) + 1  # opt=[a,b and -m arch=a,b
        for choice in _values(key, words, folders):
            yield f"{plus}{key}={value[:cut]}{choice}"
    elif "." in key:
        section = key.partition(".")[0]
        yield from (f"{plus}{path}=" for path in _section(section, words, folders))
    else:
        groups = catalog.groups(folders)
        yield from (f"{plus}{group}=" for group in groups)
        yield from (f"{name}=" for name in _root() if name not in groups)
        sections = [group for group in groups if group in ("arch", "data", "train", "target")]
        yield from (f"{section}." for section in sections)
        for group in NAMED_GROUPS:
            yield from (f"{group}.{name}." for name in _several(group, words, folders))


def _values(key: str, words: list[str], folders: Sequence[Path]) -> list[str]:
    """The choices of a group, also of one inside a stage, the formats, or true and false."""
    section, _, rest = key.partition(".")
    group = key.partition("@")[0]
    if key == "export":
        return list(FORMATS)
    if group in catalog.groups(folders):
        return list(catalog.choices(group, folders))
    known = _section(section, words, folders) if rest else _root()
    value = known.get(key)
    if isinstance(value, _Choice):
        return list(catalog.choices(value.group, folders))
    return ["true", "false"] if isinstance(value, bool) else []


class _Choice(str):
    """The value of a key that is a choice of a group: `/arch@teacher: vgg`."""

    group: str


def _section(section: str, words: list[str], folders: Sequence[Path]) -> dict[str, Any]:
    """The dotted keys and values of what the line chooses for a section, or its default."""
    if section in NAMED_GROUPS:
        found: dict[str, Any] = {}
        for name in _several(section, words, folders):
            found |= _keys(catalog.find(section, name, folders), f"{section}.{name}")
        return found
    if section not in catalog.groups(folders):
        return {}
    chosen = _chosen(section, words) or _defaults().get(section)
    known = catalog.choices(section, folders)
    return _keys(known[chosen], section) if chosen in known else {}


def _several(group: str, words: list[str], folders: Sequence[Path]) -> list[str]:
    """The stages, or trackers, that the line chooses, or all when it does not say."""
    known = list(catalog.choices(group, folders))
    value = _chosen(group, words) or ""
    chosen = [name for name in known if name in value.strip("[]").replace("[", "").split(",")]
    return chosen or [name for name in known if name != "none"]


def _chosen(group: str, words: list[str]) -> str | None:
    for word in reversed(words):
        key, _, value = word.lstrip("+").partition("=")
        if key == group:
            return value
    return None


def _defaults() -> dict[str, Any]:
    listed = _yaml(catalog.shipped_configs() / "run.yaml")["defaults"]
    return {
        name: choice
        for entry in listed
        if isinstance(entry, dict)
        for name, choice in entry.items()
    }


def _root() -> dict[str, Any]:
    content = _yaml(catalog.shipped_configs() / "run.yaml")
    sections = [name for name, value in content.items() if isinstance(value, dict)]
    return {name: content[name] for name in content if name not in ("defaults", *sections)}


def _keys(path: Path, prefix: str, outer: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The dotted keys of a YAML, with those of its base and the choices in its defaults list.

    Args:
        outer: The files that this one is the base of; one that is its own base has none.
    """
    if path in outer:
        return {}
    content = _yaml(path)
    listed = content.pop("defaults", None)
    found: dict[str, Any] = {}
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, str) and entry != "_self_":
            found |= _keys(path.parent / f"{entry}.yaml", prefix, (*outer, path))
        for name, choice in entry.items() if isinstance(entry, dict) else ():
            group, at, package = str(name).lstrip("/").partition("@")
            if at:
                value = _Choice(choice)
                value.group = group
                found[f"{prefix}.{package}"] = value
    return found | dict(_flat(content, prefix))


def _flat(node: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}.{name}")
        elif name != "_target_":
            yield f"{prefix}.{name}", value


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    from netopt_cli.yaml_limits import read_text

    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not valid YAML") from error
    return content if isinstance(content, dict) else {}
