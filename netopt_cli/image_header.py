"""How large an image says it is, read from its first bytes: before it is decoded."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from netopt_cli.errors import DataError

MOST_PIXELS = 1 << 27
"""Of an image: 134 million, more than cameras make; decoded, 400 MB. A png of 100 KB can declare
a thousand times as many."""

_PNG, _GIF, _BMP, _JPG = b"\x89PNG\r\n\x1a\n", (b"GIF87a", b"GIF89a"), b"BM", b"\xff\xd8\xff"
_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG behind which its size is; the three others are tables."""
_ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers of a JPEG without a segment."""


def check_image(file: Path) -> None:
    """Refuses what is no png, jpg, bmp or gif image, and one too large to decode.

    Raises:
        DataError: Naming the file and the rule.
    """
    try:
        with file.open("rb") as stream:
            header = stream.read(30)
            size = _size(file, header, stream)
    except OSError as error:
        raise DataError(f"Cannot read the image {file}: {error.strerror}") from error
    if size is None:
        return  # A damaged one, which is named when it is decoded.
    width, height = size
    if width * height > MOST_PIXELS:
        raise DataError(
            f"An image must have at most {MOST_PIXELS:,} pixels. Received: {file} with "
            f"{width:,} x {height:,}"
        )


def _size(file: Path, header: bytes, stream: BinaryIO) -> tuple[int, int] | None:
    if header.startswith(_BMP):
        bits_per_pixel = int.from_bytes(header[28:30], "little")
        if bits_per_pixel not in (24, 32):
            raise DataError(
                f"A bmp image must have 24 or 32 bits a pixel. Received: {file} with "
                f"{bits_per_pixel}."
            )
        return _little(header[18:22]), abs(int.from_bytes(header[22:26], "little", signed=True))
    if header.startswith(_PNG):
        return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
    if header.startswith(_GIF):
        return _little(header[6:8]), _little(header[8:10])
    if header.startswith(_JPG):
        return _jpg_size(stream)
    raise DataError(f"Not a png, jpg, bmp or gif image: {file}")


def _jpg_size(stream: BinaryIO) -> tuple[int, int] | None:
    """Goes from segment to segment to the one that has the size."""
    stream.seek(2)
    while byte := stream.read(1):
        if byte != b"\xff":
            return None
        while byte == b"\xff":  # any number of them may stand before a marker
            byte = stream.read(1)
        if not byte:
            return None
        if byte[0] in _ALONE:
            continue
        length = int.from_bytes(stream.read(2), "big")
        if byte[0] in _SIZES:
            found = stream.read(5)
            return int.from_bytes(found[3:5], "big"), int.from_bytes(found[1:3], "big")
        if length < 2:
            return None
        stream.seek(length - 2, 1)
    return None


def _little(number: bytes) -> int:
    return int.from_bytes(number, "little")
