"""Archives and compressed files, which may be a stranger's: checked before they are unpacked.

A bomb is a small file that becomes a huge one. Its size is declared, so that it can be refused
without unpacking it; who unpacks reads no more than is declared.
"""

from __future__ import annotations

import gzip
import stat
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from netopt_cli.errors import InputError

HARMLESS_BYTES = 1 << 28
"""Up to here, it does not matter how small a file was packed: whatever trains has the memory."""
MOST_EXPANSION = 200
"""Times that a larger one may grow. Images and weights grow 2 to 50 times, a bomb of DEFLATE 1,000
times."""
MOST_MEMBERS = 10_000
"""Of an archive: each takes time and memory, however small it is."""


def check_zip(path: Path) -> list[zipfile.ZipInfo]:
    """Returns the members of a zip archive of which none leaves it and all together fit.

    Raises:
        InputError: It is no zip archive, or one that nobody should unpack.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path} is damaged: it is no zip archive ({error})") from error
    size = path.stat().st_size
    if len(members) > MOST_MEMBERS:
        raise InputError(f"{path} must have at most {MOST_MEMBERS:,} members")
    names = set()
    for member in members:
        if member.filename in names:
            raise InputError(f"{path} has the member '{member.filename}' twice")
        names.add(member.filename)
        if _leaves(member.filename) or stat.S_ISLNK(member.external_attr >> 16):
            raise InputError(
                f"{path} has a member that would be written outside: '{member.filename}'"
            )
    # Members that overlap count the same bytes several times.
    if sum(member.compress_size for member in members) > size:
        raise InputError(f"{path} is damaged: its members overlap")
    check_expansion(path, size, sum(member.file_size for member in members))
    return members


def check_expansion(path: Path, packed: int, unpacked: int) -> None:
    """Refuses `unpacked` bytes out of `packed` when that is a bomb.

    Raises:
        InputError: Naming the rule and both sizes.
    """
    if unpacked > max(HARMLESS_BYTES, MOST_EXPANSION * packed):
        raise InputError(
            f"{path} may grow {MOST_EXPANSION} times when it is unpacked. Received: {packed:,} "
            f"bytes that stand for {unpacked:,}"
        )


def gunzip(path: Path) -> bytes:
    """The content of a gzip file.

    Raises:
        OSError, EOFError, zlib.error: It is damaged.
        InputError: It is a bomb.
    """
    size = path.stat().st_size
    most = max(HARMLESS_BYTES, MOST_EXPANSION * size)
    with gzip.open(path) as stream:
        content = stream.read(most + 1)
    check_expansion(path, size, len(content))
    return content


def _leaves(name: str) -> bool:
    """True for a name that is not below the place it is unpacked to, on any system."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.drive or path.root or ".." in path.parts:
            return True
    return "\0" in name
