"""What configs there are: netopt's own and those of the user's `--config-dir`.

Reads folders and lines only, without Hydra: `list`, `show` and the completion must be quick.
"""

from collections.abc import Sequence
from pathlib import Path

from netopt_cli.errors import ConfigError, did_you_mean


def shipped_configs() -> Path:
    """The folder of netopt's configs: inside the package when installed, else in the checkout."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def config_folders(config_dir: str | Path | None = None) -> list[Path]:
    """The folders that are searched, the user's first.

    Raises:
        ConfigError: When `config_dir` is not a directory.
    """
    if config_dir is None:
        return [shipped_configs()]
    own = Path(config_dir)
    if not own.is_dir():
        raise ConfigError(f"--config-dir must be a directory. Received: {own}")
    return [own.resolve(), shipped_configs()]


def groups(folders: Sequence[Path]) -> list[str]:
    """The groups (`arch`, `opt`, …) that have a choice; Hydra's own are not among them."""
    found = {
        path.name
        for folder in folders
        for path in folder.iterdir()
        if path.is_dir() and path.name != "hydra" and next(path.rglob("*.yaml"), None)
    }
    return sorted(found)


def choices(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    """The choices of a group and their files; `sub/name` for one in a subfolder.

    A file whose name begins with `_` is what choices build on, and is none itself.

    Raises:
        ConfigError: For an unknown group, with the nearest one.
    """
    found: dict[str, Path] = {}
    for folder in reversed(folders):
        root = folder / group
        for path in root.rglob("*.yaml"):
            if not path.name.startswith("_"):
                found[path.relative_to(root).with_suffix("").as_posix()] = path
    if not found:
        raise ConfigError(f"unknown group '{group}'.{did_you_mean(group, groups(folders))}")
    return dict(sorted(found.items()))


def find(group: str, name: str, folders: Sequence[Path]) -> Path:
    """The file of `group/name`.

    Raises:
        ConfigError: For an unknown group or choice, with the nearest one.
    """
    known = choices(group, folders)
    if name not in known:
        raise ConfigError(f"unknown {group} '{name}'.{did_you_mean(name, known)}")
    return known[name]


def description(path: Path) -> str:
    """The one-line description of a choice: its first comment that is not a package line."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            text = line.strip()
            if text.startswith("#") and not text.startswith("# @package"):
                return text.lstrip("# ")
            if text and not text.startswith("#"):
                break
    return ""
