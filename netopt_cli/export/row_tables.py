"""Tables whose rows are looked up (embeddings) as 8-bit integers in a file that computes in floats.

ai-edge-quantizer leaves the tables of GATHER as they are unless everything is an integer.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from netopt_cli.export.flatbuffer import Buffer, read, write
from netopt_cli.graph.quantizers import largest_integer, symmetric_scale

_BITS = 8
_PER_ROW_VERSION = 5
"""Of DEQUANTIZE, from which on there may be a scale for each row."""


def with_integer_rows(content: bytes, outputs: Collection[str]) -> bytes:
    """Rounds tables to 8 bits with a scale for each row, and widens them when the file is loaded.

    Args:
        content: A LiteRT file.
        outputs: Names of the tensors that the look-ups in these tables write.
    """
    model = read(content)
    graph = model.subgraphs[0]
    widened: dict[int, int] = {}  # table -> the tensor of its values
    for op in list(graph.operators):
        if graph.tensors[op.outputs[0]].name.decode() not in outputs:
            continue
        table = int(op.inputs[0])
        if table not in widened:
            widened[table] = _widen(model, graph, table)
        op.inputs = [widened[table], *op.inputs[1:]]
    return write(model)


def _widen(model: Any, graph: Any, table: int) -> int:
    """Makes a table one of integers; returns the tensor of its values, which an operation before
    all others computes."""
    tensor = graph.tensors[table]
    values = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.float32)
    rows = values.reshape(tensor.shape)
    scale = symmetric_scale(rows, _BITS, axes=(0,))
    largest = largest_integer(_BITS)
    integers = np.rint(rows / scale).clip(-largest, largest).astype(np.int8)
    data = integers.view(np.uint8).reshape(-1)
    if sum(other.buffer == tensor.buffer for other in graph.tensors) > 1:
        tensor.buffer = len(model.buffers)
        model.buffers.append(Buffer())
    model.buffers[tensor.buffer].data = data

    wide = schema.TensorT()
    wide.name = tensor.name + b"_values"
    wide.shape, wide.type = tensor.shape, schema.TensorType.FLOAT32
    graph.tensors.append(wide)

    tensor.type = schema.TensorType.INT8
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = scale.reshape(-1)
    tensor.quantization.zeroPoint = np.zeros(scale.size, np.int64)  # LiteRT wants one a row
    tensor.quantization.quantizedDimension = 0

    widen = schema.OperatorT()
    widen.opcodeIndex = _dequantize_code(model)
    widen.inputs, widen.outputs = [table], [len(graph.tensors) - 1]
    widen.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    widen.builtinOptions = schema.DequantizeOptionsT()
    graph.operators.insert(0, widen)
    return len(graph.tensors) - 1


def _dequantize_code(model: Any) -> int:
    """The number of the operation among those of the file."""
    kind = schema.BuiltinOperator.DEQUANTIZE
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == kind and code.version >= _PER_ROW_VERSION:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = _PER_ROW_VERSION
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
