"""Your own arrays: one `.npz` file."""

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from netopt_cli.archives import check_zip
from netopt_cli.assembly import Fraction, NormalizeRule, SampleLimit, assemble
from netopt_cli.augment import AugmentOptions
from netopt_cli.dataset import Dataset
from netopt_cli.errors import DataError
from netopt_cli.readers import Arrays, require_file


def load(
    seed: int,
    *,
    path: str,
    class_names: Sequence[str] | None = None,
    validation_fraction: Fraction = 0.1,
    normalize: NormalizeRule = "auto",
    augment: AugmentOptions | None = None,
    train_limit: SampleLimit | None = None,
    labels_per_class: SampleLimit | None = None,
) -> Dataset:
    """Loads `x_train`, `y_train`, `x_test`, `y_test`, and `x_validation`, `y_validation` (or
    `x_val`, `y_val`) when they are there.

    x is (n, *shape) uint8 or float; images (n, h, w) get a channel axis. y is (n,) whole numbers
    from 0, or one-hot (n, classes). Pickled objects are refused: they can run code.

    Args:
        seed: Of the validation split, of `train_limit` and of `labels_per_class`.
        path: The file.
        class_names: One name a class; when None, the numbers seen in `y_train`.
        validation_fraction: Share of the training samples; unused when the file has a validation
            split.

    Raises:
        DataError: the file is missing, malformed or inconsistent.
    """
    file = require_file(path)
    if not zipfile.is_zipfile(file):
        raise DataError(f"{file} is not an .npz file: write it with numpy.savez_compressed.")
    check_zip(file)
    with np.load(file, allow_pickle=False) as arrays:
        train, test = _pair(file, arrays, "train"), _pair(file, arrays, "test")
        given = [split for split in ("validation", "val") if _has(arrays, split)]
        validation = _pair(file, arrays, given[0]) if given else None
    return assemble(
        "npz",
        train=train,
        validation=validation,
        test=test,
        class_names=class_names,
        seed=seed,
        validation_fraction=validation_fraction,
        normalize=normalize,
        augment=augment,
        train_limit=train_limit,
        labels_per_class=labels_per_class,
    )


def _has(arrays: np.lib.npyio.NpzFile, split: str) -> bool:
    return f"x_{split}" in arrays or f"y_{split}" in arrays


def _pair(file: Path, arrays: np.lib.npyio.NpzFile, split: str) -> Arrays:
    return _read(file, arrays, f"x_{split}"), _read(file, arrays, f"y_{split}")


def _read(file: Path, arrays: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    if key not in arrays:
        raise DataError(
            f"{file} has no array '{key}'. It has: {', '.join(arrays.files) or 'none'}."
        )
    try:
        _check_shape(file, arrays, key)
        return arrays[key]
    except (ValueError, EOFError, OSError, zlib.error, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"'{key}' in {file} holds pickled objects, which can run code and are refused: "
                "save numbers (x uint8 or float, y whole numbers)."
            ) from error
        raise DataError(f"Cannot read '{key}' in {file}: {error}") from error


def _check_shape(file: Path, arrays: np.lib.npyio.NpzFile, key: str) -> None:
    """Refuses an array that declares more than it has: room for all of it would be made first."""
    archive = arrays.zip
    assert archive is not None  # it is open
    member = next(name for name in (f"{key}.npy", key) if name in archive.namelist())
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"the version {version} of its header is unknown")
        shape, _, dtype = read_header(stream)
        room = archive.getinfo(member).file_size - stream.tell()
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != room:
        raise DataError(
            f"'{key}' in {file} is damaged: its header says {shape} of {dtype}, which is not the "
            f"{room:,} bytes that it has."
        )
