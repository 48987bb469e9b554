"""Who is called, how often and on what, in a Keras functional graph; and what that costs."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from netopt_cli.graph.rebuild import as_functional, is_graph

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)

Shape = tuple[int, ...]
"""Sizes of one sample, without the batch."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer that is no model itself.

    Attributes:
        inputs: Shapes of its tensor arguments; an unknown size counts as 1.
        outputs: Shapes of its results.
    """

    layer: keras.Layer
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


def calls(model: keras.Model) -> Iterator[Call]:
    """Yields every call in one pass through a model; those of a nested model as often as it is."""
    for node in _nodes(as_functional(model)):
        if is_graph(node.operation):
            yield from calls(node.operation)
        else:
            yield Call(node.operation, _shapes(node.input_tensors), _shapes(node.output_tensors))


def calls_by_layer(model: keras.Model) -> dict[int, list[Call]]:
    """Returns id(layer) -> its calls."""
    found: dict[int, list[Call]] = defaultdict(list)
    for call in calls(model):
        found[id(call.layer)].append(call)
    return found


def graphs(model: keras.Model) -> list[keras.Model]:
    """Returns the functional graph of a model and of every model nested in it, each once."""
    found: dict[int, keras.Model] = {}

    def visit(graph: keras.Model) -> None:
        if id(graph) not in found:
            found[id(graph)] = as_functional(graph)
            for operation in found[id(graph)].operations:
                if is_graph(operation):
                    visit(operation)

    visit(model)
    return list(found.values())


class Edges:
    """Who feeds whom within the graphs of a model; a nested model counts as one layer."""

    def __init__(self, model: keras.Model) -> None:
        self._sources: dict[int, list[keras.Layer]] = defaultdict(list)
        self._users: dict[int, list[keras.Layer]] = defaultdict(list)
        self._calls: Counter[int] = Counter()
        self._outputs: set[int] = set()
        for graph in graphs(model):
            self._outputs |= {id(tensor._keras_history.operation) for tensor in graph.outputs}
            for node in _nodes(graph):
                self._calls[id(node.operation)] += 1
                for tensor in node.input_tensors:
                    source = tensor._keras_history.operation
                    self._sources[id(node.operation)].append(source)
                    self._users[id(source)].append(node.operation)

    def only_source(self, layer: keras.Layer) -> keras.Layer | None:
        """Returns what feeds a layer that has one input and is called in one place."""
        sources = self._sources[id(layer)]
        return sources[0] if len(sources) == 1 else None

    def only_user(self, layer: keras.Layer) -> keras.Layer | None:
        """Returns the one user of what a layer computes; None when it is an output too."""
        users = self._users[id(layer)]
        return users[0] if len(users) == 1 and id(layer) not in self._outputs else None

    def places(self, layer: keras.Layer) -> int:
        """Returns in how many places of the graphs a layer is called."""
        return self._calls[id(layer)]


def macs(layer: keras.Layer, its_calls: Iterable[Call]) -> int:
    """Returns the multiply-accumulates of a layer over all its calls.

    Exact for dense layers and convolutions, as in `measure.macs`. Elsewhere every weight of rank 2
    or more counts once for each position (sample without its last axis): right for recurrent
    layers and for the projections of attention, not for the products of attention themselves.
    """
    return sum(_macs(layer, call) for call in its_calls)


def _macs(layer: keras.Layer, call: Call) -> int:
    if not isinstance(layer, keras.Layer) or isinstance(layer, keras.layers.Embedding):
        return 0
    # The bias of a projection onto several heads has rank 2.
    kernels = [w for w in layer.weights if len(w.shape) >= 2 and w.name != "bias"]
    size = sum(math.prod(kernel.shape) for kernel in kernels)
    if not size:
        return 0
    if isinstance(layer, _TRANSPOSED):
        times = positions(layer, call.inputs[0])
    elif isinstance(layer, _CONVOLUTIONS):
        times = positions(layer, call.outputs[0])
    elif isinstance(layer, keras.layers.EinsumDense):
        inputs, labels, _ = einsum_labels(layer)
        sizes = dict(zip(labels, kernels[0].shape, strict=True))
        times = math.prod(call.inputs[0]) // math.prod(sizes.get(label, 1) for label in inputs)
    else:
        times = math.prod(call.inputs[0][:-1]) if call.inputs else 1
    return times * size


def positions(layer: keras.Layer, shape: Shape) -> int:
    """Returns the number of positions of a convolution's input or output of that shape."""
    return math.prod(spatial(layer, shape))


def spatial(layer: keras.Layer, shape: Shape) -> Shape:
    """Returns the sizes of the spatial axes of a convolution's input or output."""
    return shape[:-1] if layer.data_format == "channels_last" else shape[1:]


def einsum_labels(layer: keras.layers.EinsumDense) -> tuple[str, str, str]:
    """Returns the labels of input, kernel and output: `abc,cd->abd` gives abc, cd, abd.

    An ellipsis is written as one dot, which stands for any number of axes.
    """
    operands, output = layer.equation.replace(" ", "").replace("...", ".").split("->")
    inputs, kernel = operands.split(",")
    return inputs, kernel, output


def _nodes(graph: keras.Model) -> Iterator[Any]:
    """Yields the calls of a functional graph, sources first."""
    by_depth = graph._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from by_depth[depth]


def _shapes(tensors: Iterable[Any]) -> tuple[Shape, ...]:
    return tuple(tuple(size or 1 for size in tensor.shape[1:]) for tensor in tensors)
