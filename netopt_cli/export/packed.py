"""The packed artifact: an exported LiteRT file, recoded without loss into as few bytes as possible.

`unpack(pack(content)) == content`, bit for bit, for every `content`: accuracy, latency and memory
of the packed network are those of the file, and its bytes count all that is needed to rebuild it.

    "nP"  version (1 byte)  CRC-32 of the content (4)  method (1)  length of the content (varint)
    body, as the method has it
"""

from __future__ import annotations

import lzma
import struct
import zlib

from netopt_cli.errors import InputError

LIMIT = 1 << 31
"""Bytes that a LiteRT file can have: offsets of a flatbuffer are 32 bits wide, with a sign."""

_MAGIC = b"nP"
_VERSION = 1
_HEADER = struct.Struct("<2sBIB")
_LZMA = 0
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6}]


def pack(content: bytes) -> bytes:
    """Recodes the bytes of a LiteRT file, or any others. The same bytes give the same result."""
    if len(content) >= LIMIT:
        raise InputError(f"A file to pack must be below {LIMIT:,} bytes. Received: {len(content)}")
    header = _HEADER.pack(_MAGIC, _VERSION, zlib.crc32(content), _LZMA)
    body = lzma.compress(content, lzma.FORMAT_RAW, filters=_FILTERS)
    return header + _varint(len(content)) + body


def unpack(packed: bytes, *, limit: int = LIMIT) -> bytes:
    """Rebuilds what `pack` was given.

    Args:
        limit: Most bytes of the result. Memory stays within a small multiple of the length that
            the header declares.

    Raises:
        InputError: `packed` is not a packed file, of another version, damaged, or above `limit`.
    """
    if packed[:2] != _MAGIC:
        raise InputError("Not a packed file: it does not begin with 'nP'")
    try:
        _, version, checksum, _ = _HEADER.unpack_from(packed)
        if version != _VERSION:
            raise InputError(
                f"A packed file of version {version}; this netopt reads version {_VERSION}"
            )
        length, start = _read_varint(packed, _HEADER.size)
        if length >= limit:
            raise InputError(
                f"The packed file declares {length:,} bytes; the limit is {limit:,} bytes"
            )
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
        content = decoder.decompress(packed[start:], length)
    except (struct.error, IndexError, lzma.LZMAError, EOFError) as error:
        raise InputError("The packed file is damaged: it cannot be decoded") from error
    if len(content) != length or zlib.crc32(content) != checksum:
        raise InputError("The packed file is damaged: its checksum does not match")
    return content


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns the number and where it ends."""
    number = 0
    for shift in range(0, 35, 7):
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            break
    return number, at
