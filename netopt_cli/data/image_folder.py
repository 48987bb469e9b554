"""Your own image files, in one folder a class; they stay on disk and are read as a stream."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from netopt_cli.assembly import Fraction, NormalizeRule, SampleLimit, assemble
from netopt_cli.augment import AugmentOptions
from netopt_cli.dataset import Dataset, FileSource
from netopt_cli.errors import DataError, did_you_mean
from netopt_cli.image_header import check_image
from netopt_cli.readers import require_folder

Pixels = Annotated[int, Field(ge=1)]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
"""Names of split folders, and the split each is."""


def load(
    seed: int,
    *,
    path: str,
    image_size: tuple[Pixels, Pixels] = (32, 32),
    channels: Literal[1, 3] = 3,
    validation_fraction: Fraction = 0.1,
    test_fraction: Fraction = 0.2,
    normalize: NormalizeRule = "auto",
    augment: AugmentOptions | None = None,
    train_limit: SampleLimit | None = None,
    labels_per_class: SampleLimit | None = None,
) -> Dataset:
    """Lists `path/CLASS/…`, or `path/train/CLASS/…` with `path/validation` (or `val`) and
    `path/test` beside it; only paths and labels are held in memory.

    Files are png, jpg, jpeg, bmp or gif (its first frame); the rest is left out. Every file's
    header is checked here; a file that is broken further in is named when it is read.

    Args:
        seed: Of the validation split, of `train_limit` and of `labels_per_class`.
        path: The folder. Links that lead out of it are refused.
        image_size: (height, width) that every image is resized to.
        channels: 1 (grey) or 3 (red, green, blue).
        validation_fraction: Share of the training samples; unused with a validation folder.
        test_fraction: Share of all samples, the same for every seed; unused with a test folder.

    Raises:
        DataError: no images, an empty class, a file that is no image, a link that leaves `path`.
    """
    root = require_folder(path).resolve()
    folders = _split_folders(root) or {"train": root}
    class_names = [folder.name for folder in _subfolders(folders["train"], root)]
    if not class_names:
        raise DataError(f"{folders['train']} has no class folders: put images in one a class.")
    height, width = image_size
    shape = (height, width, int(channels))
    sources = {
        split: _source(folder, root, class_names, shape) for split, folder in folders.items()
    }
    return assemble(
        "image_folder",
        train=sources["train"],
        validation=sources.get("validation"),
        test=sources.get("test"),
        class_names=class_names,
        seed=seed,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        normalize=normalize,
        augment=augment,
        train_limit=train_limit,
        labels_per_class=labels_per_class,
    )


def _split_folders(root: Path) -> dict[str, Path]:
    """Returns the folder of each split; {} when the folders are classes."""
    folders = _subfolders(root, root)
    names = {folder.name for folder in folders}
    if "train" not in names or not names <= SPLITS.keys():
        return {}
    if {"validation", "val"} <= names:
        raise DataError(f"{root} has both a 'validation' and a 'val' folder: keep one.")
    return {SPLITS[folder.name]: folder for folder in folders}


def _source(
    split_folder: Path, root: Path, class_names: list[str], image_shape: tuple[int, int, int]
) -> FileSource:
    paths: list[str] = []
    labels: list[int] = []
    for folder in _subfolders(split_folder, root):
        if folder.name not in class_names:
            raise DataError(
                f"The class folder {folder} is not among the classes of the train split."
                f"{did_you_mean(folder.name, class_names)}"
            )
        files = [str(file) for file in _images(folder, root)]
        if not files:
            raise DataError(f"The class folder {folder} has no images ({', '.join(SUFFIXES)}).")
        paths += files
        labels += [class_names.index(folder.name)] * len(files)
    if not paths:
        raise DataError(f"{split_folder} has no class folders: put images in one a class.")
    return FileSource(np.array(paths), np.array(labels, np.int32), image_shape)


def _subfolders(folder: Path, root: Path) -> list[Path]:
    """Returns the visible folders in `folder`, sorted."""
    return [
        entry for entry in sorted(folder.iterdir()) if _is_inside(entry, root) and entry.is_dir()
    ]


def _images(folder: Path, root: Path) -> Iterator[Path]:
    """Yields the image files anywhere in `folder`, sorted, headers checked."""
    for file in sorted(folder.rglob("*")):
        if _is_inside(file, root) and file.suffix.lower() in SUFFIXES and file.is_file():
            check_image(file)
            yield file


def _is_inside(entry: Path, root: Path) -> bool:
    """Returns False for a hidden entry; refuses a link that leaves `root`."""
    if entry.is_symlink() and not entry.resolve().is_relative_to(root):
        raise DataError(
            f"The link {entry} leads out of {root}, to {entry.resolve()}: copy the file."
        )
    return not entry.name.startswith(".")
