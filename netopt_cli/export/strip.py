"""Leaves out of an exported file what no inference needs, and brings the rest in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from netopt_cli.export.flatbuffer import Buffer, read, write

_FLOATS = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.FLOAT16: np.float16}


def strip(content: bytes) -> bytes:
    """Returns a file that computes the same, of fewer bytes and in a canonical layout.

    Left out are the converter's metadata, the empty buffers of activations, and the names of
    tensors that are neither weights of rank 2 or more nor an input or output. Negative zeros, which
    masks leave behind in weights, become zeros. Tensors are in the order of their first use and
    buffers in that of the tensors, which is what `tree` and `arrays` predict best.
    """
    model = read(content)
    model.description = model.metadata = model.metadataBuffer = None
    model.signatureDefs = model.signatureDefs or None
    for index, graph in enumerate(model.subgraphs):
        _order_tensors(model, index, graph)
    buffers = [Buffer()]
    moved = {0: 0}
    for graph in model.subgraphs:
        outside = {*graph.inputs.tolist(), *graph.outputs.tolist()}
        for index, tensor in enumerate(graph.tensors):
            data = model.buffers[tensor.buffer].data
            is_constant = data is not None and len(data) > 0
            if not is_constant:
                tensor.buffer = 0
            elif tensor.buffer not in moved:
                moved[tensor.buffer] = len(buffers)
                buffers.append(_constant(tensor, data))
            tensor.buffer = moved[tensor.buffer]
            is_weight = is_constant and tensor.shape is not None and len(tensor.shape) > 1
            if not is_weight and index not in outside:
                tensor.name = None
            if tensor.quantization is not None and tensor.quantization.scale is None:
                tensor.quantization = None
    model.buffers = buffers
    return write(model)


def _order_tensors(model: Any, index: int, graph: Any) -> None:
    """Numbers the tensors of a graph by their first use."""
    graph.inputs, graph.outputs = np.array(graph.inputs), np.array(graph.outputs)
    used = [int(tensor) for tensors in _references(graph) for tensor in tensors if tensor >= 0]
    order = list(dict.fromkeys([*used, *range(len(graph.tensors))]))
    # -1 stands for an input that is not given, and stays.
    new = np.empty(len(order) + 1, np.int32)
    new[order] = np.arange(len(order))
    new[-1] = -1
    for tensors in _references(graph):
        tensors[:] = new[tensors]
    graph.tensors = [graph.tensors[old] for old in order]
    for signature in model.signatureDefs or ():
        if signature.subgraphIndex == index:
            for entry in [*signature.inputs, *signature.outputs]:
                entry.tensorIndex = int(new[entry.tensorIndex])


def _references(graph: Any) -> Iterator[np.ndarray]:
    """Every array of tensor numbers, which can be written to."""
    yield graph.inputs
    for operator in graph.operators:
        for field in ("inputs", "outputs", "intermediates"):
            tensors = getattr(operator, field)
            if tensors is not None:
                tensors = np.array(tensors)
                setattr(operator, field, tensors)
                yield tensors
    yield graph.outputs


def _constant(tensor: Any, data: np.ndarray) -> Buffer:
    buffer = Buffer()
    buffer.data = data
    if tensor.type in _FLOATS:
        values = data.view(_FLOATS[tensor.type])
        buffer.data = np.where(values == 0, np.zeros_like(values), values).view(np.uint8)
    return buffer
