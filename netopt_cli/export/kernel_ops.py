"""Which operations of a LiteRT file use which kernel of the network it was made of.

Conversion renames kernels, transposes them and folds BatchNorm into them, but what it leaves alone
is each output channel up to a factor: that is what they are recognized by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from ai_edge_litert.schema_py_generated import BuiltinOperator, TensorType

from netopt_cli.export.flatbuffer import read
from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.quantizers import channel_axes

_CHANNELS_OF = {
    BuiltinOperator.FULLY_CONNECTED: 0,
    BuiltinOperator.CONV_2D: 0,
    BuiltinOperator.TRANSPOSE_CONV: 0,
    BuiltinOperator.DEPTHWISE_CONV_2D: 3,
    BuiltinOperator.GATHER: 0,
    BuiltinOperator.EMBEDDING_LOOKUP: 0,
}
"""The axis of a kernel's output channels, by the operation that uses it."""

_NAMES = {value: name for name, value in vars(BuiltinOperator).items() if not name.startswith("_")}
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class KernelOp:
    """An operation with a kernel.

    Attributes:
        operation: Its name in the schema, such as `CONV_2D`.
        output: Name of the tensor it writes.
    """

    operation: str
    output: str


def kernel_ops(content: bytes, model: keras.Model) -> dict[str, list[KernelOp]]:
    """Returns path -> the operations that use a kernel; none for one that was not recognized.

    Args:
        content: The float32 file that `model` was exported to.
    """
    axes = channel_axes(model)
    unclaimed = {
        path: _directions(variable.numpy(), axes[path]) for path, variable in kernels(model).items()
    }
    claimed: dict[str, np.ndarray] = {}
    found: dict[str, list[KernelOp]] = {path: [] for path in unclaimed}
    for weight, ops in _constant_kernels(content):
        # Kernels that are alike are told apart by their order; what is left over was copied.
        path = _closest(weight, unclaimed) or _closest(weight, claimed)
        if path is not None:
            claimed[path] = unclaimed.pop(path, weight)
            found[path] += ops
    return found


def _constant_kernels(content: bytes) -> Iterator[tuple[np.ndarray, list[KernelOp]]]:
    """Yields the directions of each constant kernel, and the operations that use it."""
    model = read(content)
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    graph = model.subgraphs[0]
    users: dict[int, list[Any]] = {}
    for op in graph.operators:
        if codes[op.opcodeIndex] in _CHANNELS_OF:
            for index in op.inputs:
                users.setdefault(int(index), []).append(op)
    for index, ops in users.items():
        tensor = graph.tensors[index]
        data = model.buffers[tensor.buffer].data
        if data is None or tensor.type != TensorType.FLOAT32 or len(tensor.shape) < 2:
            continue
        values = np.asarray(data, np.uint8).view(np.float32).reshape(tensor.shape)
        code = codes[ops[0].opcodeIndex]
        yield (
            _directions(values, (_CHANNELS_OF[code],)),
            [
                KernelOp(_NAMES[codes[op.opcodeIndex]], graph.tensors[op.outputs[0]].name.decode())
                for op in ops
            ],
        )


def _directions(kernel: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """(channels, inputs): each channel of length 1, its largest element positive."""
    channels = [axis % kernel.ndim for axis in axes]
    rest = [axis for axis in range(kernel.ndim) if axis not in channels]
    rows = kernel.transpose(*channels, *rest).reshape(
        math.prod(kernel.shape[axis] for axis in channels), -1
    )
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    peak = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, np.newaxis], axis=1)
    return rows * np.sign(peak) / np.where(length > 0, length, 1.0)


def _closest(weight: np.ndarray, candidates: Mapping[str, np.ndarray]) -> str | None:
    """Returns the first path whose kernel has the same directions, or None.

    A channel that BatchNorm has scaled to nothing is not compared.
    """
    alive = weight.any(axis=1)
    for path, kernel in candidates.items():
        if kernel.shape == weight.shape:
            distance = np.abs(kernel - weight)[alive]
            if distance.size == 0 or distance.max() < _TOLERANCE:
                return path
    return None
