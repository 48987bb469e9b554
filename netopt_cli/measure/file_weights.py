"""The weights as they lie in an exported file, read from its flatbuffer without running it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

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
    model = schema.Model.GetRootAs(content)
    weights: dict[int, FileWeight] = {}
    for tensor in _tensors(model):
        buffer = model.Buffers(tensor.Buffer())
        is_weight = tensor.ShapeLength() >= 2 and tensor.Type() in _DTYPES
        if is_weight and buffer.DataLength() and tensor.Buffer() not in weights:
            weights[tensor.Buffer()] = _read(tensor, buffer)
    return list(weights.values())


def sparsity(weights: Sequence[FileWeight]) -> float:
    """The fraction of zeros over all the weights; 0 for a file without any."""
    size = sum(weight.size for weight in weights)
    return sum(weight.zeros for weight in weights) / size if size else 0.0


def _tensors(model: schema.Model) -> Iterator[schema.Tensor]:
    for subgraph in map(model.Subgraphs, range(model.SubgraphsLength())):
        yield from map(subgraph.Tensors, range(subgraph.TensorsLength()))


def _read(tensor: schema.Tensor, buffer: schema.Buffer) -> FileWeight:
    shape = tuple(tensor.ShapeAsNumpy().tolist())
    dtype = _DTYPES[tensor.Type()]
    size = math.prod(shape)
    raw = buffer.DataAsNumpy()
    values = _unpack_int4(raw)[:size] if dtype == "int4" else raw.view(dtype)
    zeros = np.count_nonzero(values.reshape(shape) == _zero_points(tensor))
    return FileWeight(tensor.Name().decode(), shape, dtype, size, int(zeros))


def _zero_points(tensor: schema.Tensor) -> np.ndarray | int:
    """Broadcasts over the tensor: one for all, or one for each channel."""
    quantization = tensor.Quantization()
    if quantization is None or not quantization.ZeroPointLength():
        return 0
    along_channels = [1] * tensor.ShapeLength()
    along_channels[quantization.QuantizedDimension()] = -1
    return quantization.ZeroPointAsNumpy().reshape(along_channels)


def _unpack_int4(raw: np.ndarray) -> np.ndarray:
    """Two values a byte, the low half first."""
    low = (raw << 4).view(np.int8) >> 4
    high = raw.view(np.int8) >> 4
    return np.stack([low, high], axis=-1).reshape(-1)
