"""The packed artifact: an exported LiteRT file, recoded without loss into as few bytes as possible.

`unpack(pack(content)) == content`, bit for bit, for every `content`: accuracy, latency and memory
of the packed network are those of the file, and its bytes count all that is needed to rebuild it.

    "nP"  version (1 byte)  CRC-32 of the content (4)  method (1)  length of the content (varint)
    body, by method: LZMA of the content, or
    length of the arithmetic code (varint), the code, then blocks, each with its length before it

A file in the canonical layout of `flatbuffer.write`, as every export is, is coded as what it says:
the structure by `tree`, the constants by `arrays`. Any other bytes are left to LZMA.
"""

from __future__ import annotations

import lzma
import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from netopt_cli.errors import InputError
from netopt_cli.export import flatbuffer
from netopt_cli.export.arrays import Array, ArrayCoder
from netopt_cli.export.entropy import Coder, Decoder, Encoder
from netopt_cli.export.tree import TreeCoder, UnsupportedError
from netopt_cli.export.varint import read_varint, varint

LIMIT = 1 << 31
"""Bytes that a LiteRT file can have: offsets of a flatbuffer are 32 bits wide, with a sign."""

_MAGIC = b"nP"
_VERSION = 1
_HEADER = struct.Struct("<2sBIB")
_LZMA, _CANONICAL = range(2)
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
_ITEMSIZES = {
    schema.TensorType.FLOAT32: 4,
    schema.TensorType.INT32: 4,
    schema.TensorType.FLOAT16: 2,
    schema.TensorType.INT16: 2,
}


def pack(content: bytes) -> bytes:
    """Recodes the bytes of a LiteRT file, or any others. The same bytes give the same result."""
    if len(content) >= LIMIT:
        raise InputError(f"A file to pack must be below {LIMIT:,} bytes. Received: {len(content)}")
    body = _pack_canonical(content)
    method = _CANONICAL
    if body is None:
        method = _LZMA
        body = lzma.compress(content, lzma.FORMAT_RAW, filters=_FILTERS)
    header = _HEADER.pack(_MAGIC, _VERSION, zlib.crc32(content), method)
    return header + varint(len(content)) + body


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
        _, version, checksum, method = _HEADER.unpack_from(packed)
        length, start = read_varint(packed, _HEADER.size)
    except (struct.error, ValueError, IndexError) as error:
        raise InputError("The packed file is damaged: its header is cut off") from error
    if version != _VERSION:
        raise InputError(
            f"A packed file of version {version}; this netopt reads version {_VERSION}"
        )
    if length > limit:
        raise InputError(f"The packed file declares {length:,} bytes; the limit is {limit:,} bytes")
    try:
        content = _METHODS[method](packed[start:], length)
    except Exception as error:
        # A damaged stream decodes to anything, and what is built of it can fail in any way.
        raise InputError("The packed file is damaged: it cannot be decoded") from error
    if len(content) != length or zlib.crc32(content) != checksum:
        raise InputError("The packed file is damaged: its checksum does not match")
    return content


def _pack_canonical(content: bytes) -> bytes | None:
    """None when the content is not a LiteRT file in the canonical layout."""
    try:
        model = flatbuffer.read(content)
        if flatbuffer.write(model) != content:
            return None
        coder = Encoder()
        blocks: list[bytes] = []
        _code(coder, model, blocks, len(content))
    except (ValueError, UnsupportedError):
        return None
    return b"".join(varint(len(each)) + each for each in (coder.finish(), *blocks))


def _unpack_lzma(body: bytes, length: int) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS).decompress(body, length)


def _unpack_canonical(body: bytes, length: int) -> bytes:
    parts = []
    at = 0
    while at < len(body):
        size, at = read_varint(body, at)
        parts.append(body[at : at + size])
        at += size
    stream, *blocks = parts
    return flatbuffer.write(_code(Decoder(stream), None, blocks, length))


_METHODS = {_LZMA: _unpack_lzma, _CANONICAL: _unpack_canonical}


def _code(coder: Coder, model: Any, blocks: list[bytes], length: int) -> Any:
    """Codes a `ModelT` in the direction of the coder; returns it."""
    trees = TreeCoder(coder)
    result = trees.code(model, length)
    constants = [*_scales(result), *_buffers(result)]
    if model is not None:
        given = [*_scales(model), *_buffers(model)]
        for (_, _, array), (holder, field, _) in zip(constants, given, strict=True):
            data = getattr(holder, field)
            array.words = np.ascontiguousarray(data).view(f"<u{array.itemsize}")
    ArrayCoder(coder, blocks).code([array for _, _, array in constants])
    for holder, field, array in constants:
        assert array.words is not None
        words = array.words.astype(f"<u{array.itemsize}")
        setattr(holder, field, words.view(getattr(holder, field).dtype))
    return result


_Constant = tuple[Any, str, Array]
"""A table, the name of its field, and what lies there."""


def _scales(model: Any) -> Iterator[_Constant]:
    for graph in model.subgraphs or ():
        for tensor in graph.tensors or ():
            quantization = tensor.quantization
            if quantization is not None and quantization.scale is not None:
                yield quantization, "scale", Array((1, len(quantization.scale)), 4)


def _buffers(model: Any) -> Iterator[_Constant]:
    """The buffers that are not empty, each as the first tensor that uses it has it."""
    tensors: dict[int, Any] = {}
    for graph in model.subgraphs or ():
        for tensor in graph.tensors or ():
            tensors.setdefault(tensor.buffer, tensor)
    for index, buffer in enumerate(model.buffers or ()):
        if buffer.data is None or not len(buffer.data):
            continue
        size = len(buffer.data)
        tensor = tensors.get(index)
        itemsize = _ITEMSIZES.get(tensor.type, 1) if tensor is not None else 1
        if size % itemsize:
            itemsize = 1
        yield buffer, "data", Array(_matrix(tensor, size // itemsize), itemsize)


def _matrix(tensor: Any, count: int) -> tuple[int, int]:
    """Output channels along the rows, if the shape tells: the first dimension, or the last where
    the first is 1, as of depthwise kernels, transposed."""
    shape = [] if tensor is None or tensor.shape is None else tensor.shape.tolist()
    if len(shape) < 2 or min(shape) < 1:
        return 1, count
    rows = shape[0] if shape[0] > 1 else math.prod(shape[:-1])
    return (rows, count // rows) if count % rows == 0 else (1, count)
