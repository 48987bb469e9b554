"""A LiteRT file as a tree of objects, and back to bytes in one canonical layout."""

from __future__ import annotations

import struct
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

IDENTIFIER = b"TFL3"
_ALIGNMENT = 16
"""Of the data of a buffer, as the schema demands; the generated code does not see to it."""


class Buffer(schema.BufferT):
    """A buffer that is written at an aligned address."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 (the generated name)
        data = None
        if self.data is not None:
            raw = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(raw), _ALIGNMENT)
            builder.head -= len(raw)
            builder.Bytes[builder.head : builder.head + len(raw)] = raw
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def read(content: bytes) -> Any:
    """Returns the `ModelT` of a file.

    Raises:
        ValueError: It is no LiteRT file, or a damaged one.
    """
    if content[4:8] != IDENTIFIER:
        raise ValueError("not a LiteRT file")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    except (struct.error, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError("not a LiteRT file") from error
    for index, old in enumerate(model.buffers or ()):
        buffer = Buffer()
        buffer.data, buffer.offset, buffer.size = old.data, old.offset, old.size
        model.buffers[index] = buffer
    return model


def write(model: Any) -> bytes:
    """Returns the file of a `ModelT` whose buffers are `Buffer`s: the same for equal trees."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())
