"""Arrays of an `.npz` file, which may be a stranger's: no pickles, no more bytes than there are."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from netopt_cli.archives import check_zip
from netopt_cli.errors import DataError
from netopt_cli.readers import require_file


class NpzArrays:
    """The arrays of an open file, by name; each is read when it is asked for."""

    def __init__(self, file: Path, arrays: np.lib.npyio.NpzFile) -> None:
        self._file = file
        self._arrays = arrays

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def __getitem__(self, key: str) -> np.ndarray:
        """Raises:
        DataError: It is not there, damaged, or holds pickled objects.
        """
        if key not in self._arrays:
            raise DataError(
                f"{self._file} has no array '{key}'. It has: "
                f"{', '.join(self._arrays.files) or 'none'}."
            )
        try:
            self._check_shape(key)
            return self._arrays[key]
        except (ValueError, EOFError, OSError, zlib.error, zipfile.BadZipFile) as error:
            if "allow_pickle" in str(error):
                raise DataError(
                    f"'{key}' in {self._file} holds pickled objects, which can run code and are "
                    "refused: save numbers (x uint8 or float, y whole numbers)."
                ) from error
            raise DataError(f"Cannot read '{key}' in {self._file}: {error}") from error

    def _check_shape(self, key: str) -> None:
        """Refuses an array that declares more than it has: room for all of it would be made
        first."""
        archive = self._arrays.zip
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
                f"'{key}' in {self._file} is damaged: its header says {shape} of {dtype}, which is "
                f"not the {room:,} bytes that it has."
            )


@contextmanager
def npz_file(path: str) -> Iterator[NpzArrays]:
    """Opens a file.

    Raises:
        DataError: It is missing, or no `.npz` file.
        InputError: It is an archive that nobody should unpack.
    """
    file = require_file(path)
    if not zipfile.is_zipfile(file):
        raise DataError(f"{file} is not an .npz file: write it with numpy.savez_compressed.")
    check_zip(file)
    with np.load(file, allow_pickle=False) as arrays:
        yield NpzArrays(file, arrays)
