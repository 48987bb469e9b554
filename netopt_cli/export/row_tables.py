"""Tables whose rows are looked up (embeddings) as 8-bit integers in a file that computes in floats.

ai-edge-quantizer leaves the tables of GATHER as they are unless everything is an integer. Here the
integers are looked up, and what was found is multiplied with the scale of its row, so that no table
is ever widened: the memory that a file needs falls too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from netopt_cli.export.flatbuffer import Buffer, read, write
from netopt_cli.graph.quantizers import largest_integer, symmetric_scale

_BITS = 8
_VERSIONS = {
    schema.BuiltinOperator.GATHER: 2,
    schema.BuiltinOperator.DEQUANTIZE: 2,
    schema.BuiltinOperator.RESHAPE: 1,
    schema.BuiltinOperator.MUL: 1,
}
"""Of the operations here, the first that know the types they are used with."""


def with_integer_rows(content: bytes, outputs: Collection[str]) -> bytes:
    """Rounds tables to 8 bits with a scale for each row.

    Args:
        content: A LiteRT file.
        outputs: Names of the tensors that the look-ups in these tables write.
    """
    file = _File(content)
    tables: dict[int, int] = {}  # a table -> the tensor of its scales
    for op in list(file.graph.operators):
        if file.graph.tensors[op.outputs[0]].name.decode() in outputs:
            table = int(op.inputs[0])
            if table not in tables:
                tables[table] = file.round_rows(table)
            file.look_up(op, tables[table])
    return write(file.model)


class _File:
    """A file whose look-ups are changed one by one."""

    def __init__(self, content: bytes) -> None:
        self.model = read(content)
        self.graph = self.model.subgraphs[0]

    def round_rows(self, table: int) -> int:
        """Makes the constant of a table one of integers; returns the tensor of its scales."""
        tensor = self.graph.tensors[table]
        values = np.asarray(self.model.buffers[tensor.buffer].data, np.uint8).view(np.float32)
        rows = values.reshape(tensor.shape)
        scale = symmetric_scale(rows, _BITS, axes=(0,))
        largest = largest_integer(_BITS)
        integers = np.rint(rows / scale).clip(-largest, largest).astype(np.int8)
        if sum(other.buffer == tensor.buffer for other in self.graph.tensors) > 1:
            tensor.buffer = self._buffer()
        self.model.buffers[tensor.buffer].data = integers.view(np.uint8).reshape(-1)
        tensor.type, tensor.quantization = schema.TensorType.INT8, _as_they_are()
        return self._constant(tensor.name + b"_scales", scale.reshape(-1))

    def look_up(self, op: Any, scales: int) -> None:
        """Puts four operations before one that looks rows up, which becomes a product."""
        (result,) = op.outputs
        ids, shape = op.inputs[1], list(self.graph.tensors[result].shape)
        name = self.graph.tensors[result].name
        kinds = schema.BuiltinOperator
        integers = self._tensor(name + b"_integers", shape, schema.TensorType.INT8)
        self.graph.tensors[integers].quantization = _as_they_are()
        floats = self._tensor(name + b"_floats", shape)
        found = self._tensor(name + b"_found", shape[:-1])
        column = self._tensor(name + b"_column", [*shape[:-1], 1])
        size = self._constant(name + b"_size", np.array([*shape[:-1], 1], np.int32))
        gather, options = op.builtinOptionsType, op.builtinOptions
        before = [
            self._operation(kinds.GATHER, [op.inputs[0], ids], integers, gather, options),
            self._operation(
                kinds.DEQUANTIZE, [integers], floats,
                schema.BuiltinOptions.DequantizeOptions, schema.DequantizeOptionsT(),
            ),
            self._operation(kinds.GATHER, [scales, ids], found, gather, options),
            self._operation(
                kinds.RESHAPE, [found, size], column,
                schema.BuiltinOptions.ReshapeOptions, schema.ReshapeOptionsT(),
            ),
        ]  # fmt: skip
        product = self._operation(
            kinds.MUL, [floats, column], result,
            schema.BuiltinOptions.MulOptions, schema.MulOptionsT(),
        )  # fmt: skip
        at = self.graph.operators.index(op)
        self.graph.operators[at : at + 1] = [*before, product]

    def _operation(
        self, kind: int, inputs: Sequence[int], output: int, options_type: int, options: Any
    ) -> Any:
        op = schema.OperatorT()
        op.opcodeIndex = self._code(kind)
        op.inputs, op.outputs = list(inputs), [output]
        op.builtinOptionsType, op.builtinOptions = options_type, options
        return op

    def _code(self, kind: int) -> int:
        """The number of an operation among those of the file."""
        for index, code in enumerate(self.model.operatorCodes):
            if code.builtinCode == kind and code.version >= _VERSIONS[kind]:
                return index
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        code.version = _VERSIONS[kind]
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def _tensor(
        self, name: bytes, shape: Sequence[int], kind: int = schema.TensorType.FLOAT32
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), kind
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _constant(self, name: bytes, values: np.ndarray) -> int:
        is_float = values.dtype == np.float32
        kind = schema.TensorType.FLOAT32 if is_float else schema.TensorType.INT32
        tensor = self._tensor(name, values.shape, kind)
        self.graph.tensors[tensor].buffer = self._buffer()
        self.model.buffers[-1].data = values.view(np.uint8).reshape(-1)
        return tensor

    def _buffer(self) -> int:
        self.model.buffers.append(Buffer())
        return len(self.model.buffers) - 1


def _as_they_are() -> Any:
    """Integers that stand for themselves."""
    quantization = schema.QuantizationParametersT()
    quantization.scale = np.ones(1, np.float32)
    quantization.zeroPoint = np.zeros(1, np.int64)
    return quantization
