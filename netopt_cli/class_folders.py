"""The files of a data set that keeps them in one folder a class, with or without split folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from netopt_cli.errors import DataError, did_you_mean
from netopt_cli.readers import require_folder

SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
"""Names of split folders, and the split each is."""


@dataclass(frozen=True)
class LabelledFiles:
    """The files of a split.

    Attributes:
        paths: (n,) absolute; those of a class together, sorted.
        within: (n,) each relative to the folder of its class, with slashes.
        labels: (n,) numbers of the classes.
    """

    paths: list[Path]
    within: list[str]
    labels: list[int]


def list_class_folders(
    path: str, *, suffixes: Sequence[str], what: str
) -> tuple[list[str], dict[str, LabelledFiles]]:
    """Lists `path/CLASS/…`, or `path/train/CLASS/…` with `path/validation` (or `val`) and
    `path/test` beside it.

    Hidden entries and files of other suffixes are left out.

    Args:
        suffixes: Of the files that count, lower case, with the dot.
        what: The files are, in the plural, for messages: `images`.

    Returns:
        The names of the classes, and the files of each split that has a folder; without split
        folders all are in `train`.

    Raises:
        DataError: No classes, an empty class, a class that the train split has not, a link that
            leaves `path`.
    """
    root = require_folder(path).resolve()
    folders = _split_folders(root) or {"train": root}
    class_names = [folder.name for folder in _subfolders(folders["train"], root)]
    if not class_names:
        raise DataError(f"{folders['train']} has no class folders: put {what} in one a class.")
    files = {
        split: _files(folder, root, class_names, suffixes, what)
        for split, folder in folders.items()
    }
    return class_names, files


def _split_folders(root: Path) -> dict[str, Path]:
    """Returns the folder of each split; {} when the folders are classes."""
    folders = _subfolders(root, root)
    names = {folder.name for folder in folders}
    if "train" not in names or not names <= SPLITS.keys():
        return {}
    if {"validation", "val"} <= names:
        raise DataError(f"{root} has both a 'validation' and a 'val' folder: keep one.")
    return {SPLITS[folder.name]: folder for folder in folders}


def _files(
    split_folder: Path, root: Path, class_names: list[str], suffixes: Sequence[str], what: str
) -> LabelledFiles:
    files = LabelledFiles([], [], [])
    for folder in _subfolders(split_folder, root):
        if folder.name not in class_names:
            raise DataError(
                f"The class folder {folder} is not among the classes of the train split."
                f"{did_you_mean(folder.name, class_names)}"
            )
        paths = list(_with_suffix(folder, root, suffixes))
        if not paths:
            raise DataError(f"The class folder {folder} has no {what} ({', '.join(suffixes)}).")
        files.paths.extend(paths)
        files.within.extend(path.relative_to(folder).as_posix() for path in paths)
        files.labels.extend([class_names.index(folder.name)] * len(paths))
    if not files.paths:
        raise DataError(f"{split_folder} has no class folders: put {what} in one a class.")
    return files


def _subfolders(folder: Path, root: Path) -> list[Path]:
    """Returns the visible folders in `folder`, sorted."""
    return [
        entry for entry in sorted(folder.iterdir()) if _is_inside(entry, root) and entry.is_dir()
    ]


def _with_suffix(folder: Path, root: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """Yields the files anywhere in `folder`, sorted."""
    for file in sorted(folder.rglob("*")):
        if _is_inside(file, root) and file.suffix.lower() in suffixes and file.is_file():
            yield file


def _is_inside(entry: Path, root: Path) -> bool:
    """Returns False for a hidden entry; refuses a link that leaves `root`."""
    if entry.is_symlink() and not entry.resolve().is_relative_to(root):
        raise DataError(
            f"The link {entry} leads out of {root}, to {entry.resolve()}: copy the file."
        )
    return not entry.name.startswith(".")
