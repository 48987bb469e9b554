"""Readers of the files that data sets come in, and the one message when a file is not there."""

import math
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from netopt_cli.archives import gunzip
from netopt_cli.errors import DataError, did_you_mean

Arrays = tuple[np.ndarray, np.ndarray]
"""x and y of one split."""


def require_file(path: str | Path) -> Path:
    """Returns the path of a file that exists.

    Raises:
        DataError: names the nearest file in the folder, or the folder that is missing.
    """
    file = Path(path).expanduser()
    if file.is_file():
        return file
    if file.is_dir():
        raise DataError(f"path must be a file. Received: the folder {file}")
    folder = require_folder(file.parent)
    present = [entry.name for entry in folder.iterdir() if entry.suffix == file.suffix]
    raise DataError(f"No such file: {file}.{did_you_mean(file.name, present)}")


def require_folder(path: str | Path) -> Path:
    """Returns the path of a folder that exists.

    Raises:
        DataError: names the nearest folder beside it.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise DataError(f"path must be a folder. Received: the file {folder}")
    beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
    present = [entry.name for entry in beside if entry.is_dir()]
    raise DataError(f"No such folder: {folder}.{did_you_mean(folder.name, present)}")


def read_mnist_files(path: str | Path) -> tuple[Arrays, Arrays]:
    """Reads the four files of MNIST, and of the sets that took over its format.

    Args:
        path: The folder of `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the two
            `t10k-…`, each as it is or with `.gz`.

    Returns:
        (x_train, y_train), (x_test, y_test): x uint8 (n, h, w), y uint8 (n,).

    Raises:
        DataError: a file is missing or malformed.
    """
    folder = require_folder(path)
    train, test = (
        (
            _read_idx(folder, f"{split}-images-idx3-ubyte", rank=3),
            _read_idx(folder, f"{split}-labels-idx1-ubyte", rank=1),
        )
        for split in ("train", "t10k")
    )
    return train, test


def read_cifar_binary(files: Sequence[Path], label_bytes: int, label: int) -> Arrays:
    """Reads the binary version of CIFAR, which holds no pickles.

    Args:
        files: In order; each a sequence of records: label bytes, then 3·32·32 bytes of pixels.
        label_bytes: Labels a record: 1 (CIFAR-10) or 2 (CIFAR-100: coarse, fine).
        label: Which of them to take.

    Returns:
        x uint8 (n, 32, 32, 3), y uint8 (n,).

    Raises:
        DataError: a file is missing or not a whole number of records.
    """
    record_bytes = label_bytes + 3 * 32 * 32
    parts = []
    for file in files:
        content = np.fromfile(require_file(file), dtype=np.uint8)
        if len(content) == 0 or len(content) % record_bytes:
            raise DataError(
                f"A CIFAR binary file must be records of {record_bytes} bytes. "
                f"Received: {file} of {len(content)} bytes."
            )
        parts.append(content.reshape(-1, record_bytes))
    records = np.concatenate(parts)
    planes = records[:, label_bytes:].reshape(-1, 3, 32, 32)  # (n, c, h, w)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, label].copy()


def keras_download(name: str, load: Callable[[], Any], by_hand: str) -> tuple[Arrays, Arrays]:
    """Gets a set of `keras.datasets` from its cache, or from the network.

    Args:
        load: Returns (x_train, y_train), (x_test, y_test).
        by_hand: How to provide the files otherwise; ends the message of the error.

    Raises:
        DataError: the download failed, or what is in the cache cannot be read.
    """
    cache = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets"
    try:
        return load()
    except Exception as error:  # Keras raises a bare Exception when there is no network
        raise DataError(
            f"Could not get {name}, neither from the cache {cache} nor from the network ({error}). "
            f"{by_hand}"
        ) from error


def _read_idx(folder: Path, name: str, rank: int) -> np.ndarray:
    """Reads a file of unsigned bytes in the IDX format: two zeros, the type 8, the rank, the sizes
    (big-endian, 4 bytes each), the values.
    """
    packed = folder / f"{name}.gz"
    file = packed if packed.is_file() else require_file(folder / name)
    try:
        content = gunzip(file) if file == packed else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"Cannot read {file}: {error}") from error
    header_bytes = 4 + 4 * rank
    if len(content) < header_bytes or content[:4] != bytes((0, 0, 8, rank)):
        raise DataError(f"{file} is not an IDX file of unsigned bytes with {rank} axes.")
    shape = struct.unpack(f">{rank}I", content[4:header_bytes])
    values = np.frombuffer(content, np.uint8, offset=header_bytes)
    if len(values) != math.prod(shape):
        raise DataError(
            f"{file} is damaged: its header says {math.prod(shape)} values, it has {len(values)}."
        )
    return values.reshape(shape)
