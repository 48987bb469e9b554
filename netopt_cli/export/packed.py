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
from netopt_cli.export.prior import experienced
from netopt_cli.export.scale_rules import scale_rules
from netopt_cli.export.tree import UnsupportedError
from netopt_cli.export.varint import read_varint, varint

LIMIT = 1 << 31
"""Bytes that a LiteRT file can have: offsets of a flatbuffer are 32 bits wide, with a sign."""

_MAGIC = b"nP"
_VERSION = 2
_HEADER = struct.Struct("<2sBIB")
_LZMA, _CANONICAL = range(2)
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
_BITS = {
    schema.TensorType.FLOAT32: 32,
    schema.TensorType.INT32: 32,
    schema.TensorType.FLOAT16: 16,
    schema.TensorType.INT16: 16,
    schema.TensorType.INT4: 4,
}


def pack(content: bytes) -> bytes:
    """Recodes the bytes of a LiteRT file, or any others. The same bytes give the same result."""
    if len(content) >= LIMIT:
        raise InputError(f"A file to pack must be below {LIMIT:,} bytes. Received: {len(content)}")
    body = _pack_canonical(content)
    if body is not None:
        packed = _with_header(content, _CANONICAL, body)
        try:
            if unpack(packed) == content:
                return packed
        except InputError:
            pass  # A file that is not what it says can be read in two ways, and comes back in one.
    body = lzma.compress(content, lzma.FORMAT_RAW, filters=_FILTERS)
    return _with_header(content, _LZMA, body)


def _with_header(content: bytes, method: int, body: bytes) -> bytes:
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
    trees = experienced(coder)
    result = trees.code(model, length)
    rules = scale_rules(result)
    given_rules = scale_rules(model) if model is not None else [None] * len(rules)
    rules = [
        rule
        for rule, given in zip(rules, given_rules, strict=True)
        if trees.flag(given is not None and given.holds(), rule.name)
    ]
    derived = {id(rule.target) for rule in rules}
    constants = [*_scales(result), *_buffers(result)]
    if model is not None:
        given = [*_scales(model), *_buffers(model)]
        for (_, _, array), (holder, field, _) in zip(constants, given, strict=True):
            array.words = _words(getattr(holder, field), array.bits)
    constants = [each for each in constants if id(each[0]) not in derived]
    ArrayCoder(coder, blocks).code([array for _, _, array in constants])
    for holder, field, array in constants:
        assert array.words is not None
        raw = _raw(array.words, array.bits)
        setattr(holder, field, raw.view(getattr(holder, field).dtype))
    for rule in rules:
        rule.target.scale = rule.derived()
    return result


_Constant = tuple[Any, str, Array]
"""A table, the name of its field, and what lies there."""


def _scales(model: Any) -> Iterator[_Constant]:
    for graph in model.subgraphs or ():
        for tensor in graph.tensors or ():
            quantization = tensor.quantization
            if quantization is not None and quantization.scale is not None:
                yield quantization, "scale", Array((1, len(quantization.scale)), 32)


def _buffers(model: Any) -> Iterator[_Constant]:
    """The buffers that are not empty, each as the first tensor that uses it has it."""
    tensors: dict[int, Any] = {}
    for graph in model.subgraphs or ():
        for tensor in graph.tensors or ():
            tensors.setdefault(tensor.buffer, tensor)
    for index, buffer in enumerate(model.buffers or ()):
        if buffer.data is None or not len(buffer.data):
            continue
        size = 8 * len(buffer.data)
        tensor = tensors.get(index)
        bits = _BITS.get(tensor.type, 8) if tensor is not None else 8
        if size % bits:
            bits = 8
        yield buffer, "data", Array(_matrix(tensor, size // bits), bits)


def _words(data: np.ndarray, bits: int) -> np.ndarray:
    """The elements that lie in `data`, as unsigned numbers."""
    raw = np.ascontiguousarray(data).view(np.uint8)
    if bits == 4:
        # Two elements a byte, the low half first.
        return np.stack([raw & 15, raw >> 4], axis=-1).reshape(-1)
    return raw.view(f"<u{bits // 8}")


def _raw(words: np.ndarray, bits: int) -> np.ndarray:
    """The reverse of `_words`: bytes."""
    if bits == 4:
        return (words[::2] | words[1::2] << 4).astype(np.uint8)
    return words.astype(f"<u{bits // 8}").view(np.uint8)


def _matrix(tensor: Any, count: int) -> tuple[int, int]:
    """Output channels along the rows, if the shape tells: the first dimension, or the last where
    the first is 1, as of depthwise kernels, transposed."""
    shape = [] if tensor is None or tensor.shape is None else tensor.shape.tolist()
    if len(shape) < 2 or min(shape) < 1:
        return 1, count
    rows = shape[0] if shape[0] > 1 else math.prod(shape[:-1])
    return (rows, count // rows) if count % rows == 0 else (1, count)
