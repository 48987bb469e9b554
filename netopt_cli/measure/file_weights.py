"""The weights as they lie in an exported file, read from its flatbuffer without running it."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from netopt_cli.export.flatbuffer import IDENTIFIER

_DTYPES = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.FLOAT16: "float16",
    schema.TensorType.INT16: "int16",
    schema.TensorType.INT8: "int8",
    schema.TensorType.INT4: "int4",
}


@dataclass(frozen=True)
class FileWeight:
    """A constant tensor of an exported file.

    Attributes:
        name: As the converter named it.
        shape: In LiteRT's layout, which differs from that of Keras.
        dtype: float32, float16, int16, int8 or int4.
        size: Number of elements.
        zeros: Elements that stand for zero: those equal to the zero point when quantized.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    zeros: int


def read_file_weights(content: bytes) -> list[FileWeight]:
    """Lists the constant tensors of rank ≥ 2: kernels and embeddings, not biases.

    What several tensors share is stored, and counted, once.
    """
    found = []
    for tensor, values in _constants(schema.Model.GetRootAs(content)):
        zeros = int(np.count_nonzero(values == _along_channels(tensor, "ZeroPoint", 0)))
        dtype = _DTYPES[tensor.Type()]
        found.append(FileWeight(tensor.Name().decode(), values.shape, dtype, values.size, zeros))
    return found


def real_values(content: bytes) -> np.ndarray:
    """The numbers that the same tensors stand for, float32 (n,): integers times their scales.

    Raises:
        ValueError: It is no LiteRT file, or a damaged one.
    """
    if content[4:8] != IDENTIFIER:
        raise ValueError("not a LiteRT file")
    found = [np.empty(0, np.float32)]
    try:
        for tensor, values in _constants(schema.Model.GetRootAs(content)):
            centred = values.astype(np.float32) - _along_channels(tensor, "ZeroPoint", 0)
            found.append((centred * _along_channels(tensor, "Scale", 1)).astype(np.float32).ravel())
    except (struct.error, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError("a damaged LiteRT file") from error
    return np.concatenate(found)


def sparsity(weights: Sequence[FileWeight]) -> float:
    """The fraction of zeros over all the weights; 0 for a file without any."""
    size = sum(weight.size for weight in weights)
    return sum(weight.zeros for weight in weights) / size if size else 0.0


def _constants(model: schema.Model) -> Iterator[tuple[schema.Tensor, np.ndarray]]:
    """Yields each tensor of weights with its values, in its shape, as they are stored."""
    seen: set[int] = set()
    for tensor in _tensors(model):
        buffer = model.Buffers(tensor.Buffer())
        is_weight = tensor.ShapeLength() >= 2 and tensor.Type() in _DTYPES
        if is_weight and buffer.DataLength() and tensor.Buffer() not in seen:
            seen.add(tensor.Buffer())
            shape = tuple(tensor.ShapeAsNumpy().tolist())
            dtype, raw = _DTYPES[tensor.Type()], buffer.DataAsNumpy()
            values = _unpack_int4(raw)[: math.prod(shape)] if dtype == "int4" else raw.view(dtype)
            yield tensor, values.reshape(shape)


def _tensors(model: schema.Model) -> Iterator[schema.Tensor]:
    for subgraph in map(model.Subgraphs, range(model.SubgraphsLength())):
        yield from map(subgraph.Tensors, range(subgraph.TensorsLength()))


def _along_channels(tensor: schema.Tensor, name: str, default: int) -> np.ndarray | int:
    """The scales or zero points of a tensor, broadcasting over it: one, or one for each channel."""
    quantization = tensor.Quantization()
    if quantization is None or not getattr(quantization, f"{name}Length")():
        return default
    along_channels = [1] * tensor.ShapeLength()
    along_channels[quantization.QuantizedDimension()] = -1
    return getattr(quantization, f"{name}AsNumpy")().reshape(along_channels)


def _unpack_int4(raw: np.ndarray) -> np.ndarray:
    """Two values a byte, the low half first."""
    low = (raw << 4).view(np.int8) >> 4
    high = raw.view(np.int8) >> 4
    return np.stack([low, high], axis=-1).reshape(-1)
