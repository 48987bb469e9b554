"""Early exits of a functional graph: where they can be, their heads, and the segments between them.

A network with exits is one functional model of several outputs, all of them logits (batch,
classes): those of the exits from the input on, and the final ones last. Rewrites keep outputs and
their order, so that where an exit leaves the trunk is read off the graph whenever it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from netopt_cli.errors import ArchError
from netopt_cli.graph.rebuild import as_functional, is_graph, layers, rebuild

BuildHead = Callable[[keras.KerasTensor, int], keras.KerasTensor]
"""(what the trunk computes there, number of the exit from 1) -> logits (batch, classes)."""


def final_logits(outputs: Any) -> tf.Tensor:
    """The logits that count when nobody leaves early: the last of a model's outputs."""
    return tf.nest.flatten(outputs)[-1]


def exit_places(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Returns the layers after which an exit can be: layer -> what it computes, from the input on.

    Everything that is computed later must follow from the output of such a layer alone (it
    separates the graph), so that one tensor passes from segment to segment. The input itself and
    the logits are no such places, nor are layers inside of nested models.
    """
    graph = as_functional(model)
    nodes = list(_nodes(graph, [graph.outputs[-1]]))
    last_use: dict[int, int] = {}  # of each tensor, as a position
    for position, node in enumerate(nodes):
        last_use |= {id(tensor): position for tensor in node.input_tensors}
    found: dict[str, keras.KerasTensor] = {}
    needed_until = -1
    for position, node in enumerate(nodes):
        outputs = [tensor for tensor in node.outputs if id(tensor) in last_use]
        if not node.is_input and len(outputs) == 1 and needed_until <= position:
            found[node.operation.name] = outputs[0]
        needed_until = max([needed_until, *(last_use[id(tensor)] for tensor in outputs)])
    return found


def ends_of_blocks(model: keras.Model) -> list[str]:
    """Returns, among the places of exits, the last one before each further layer with a kernel.

    What lies between two of them is a block: a convolution with its normalization, activation and
    pooling, or a whole residual block. The end of the block before the logits is left out: an
    exit there could only repeat what the network does next.
    """
    graph = as_functional(model)
    places = {id(tensor): name for name, tensor in exit_places(graph).items()}
    ends: list[str] = []
    place, has_kernel = None, False
    for node in _nodes(graph, [graph.outputs[-1]]):
        if _has_kernel(node.operation):
            if place is not None and has_kernel:
                ends.append(place)
                has_kernel = False
            place, has_kernel = None, True
        for tensor in node.outputs:
            place = places.get(id(tensor), place)
    return ends[:-1]


def attach_exits(model: keras.Model, places: Sequence[str], head: BuildHead) -> keras.Model:
    """Returns a copy of `model` with an exit after each of the layers, its weights kept.

    Args:
        places: Names among `exit_places`, in any order.

    Returns:
        A functional model with the outputs [logits of the exits, from the input on, final logits].
    """
    trunk, _ = rebuild(model)
    tensors = [tensor for name, tensor in exit_places(trunk).items() if name in places]
    exits = [head(tensor, number) for number, tensor in enumerate(tensors, start=1)]
    return keras.Model(trunk.input, [*exits, trunk.outputs[-1]], name=model.name)


def without_exits(model: keras.Model) -> keras.Model:
    """Returns the network up to its final logits; it shares its layers with `model`."""
    return keras.Model(model.input, model.outputs[-1], name=model.name)


def trunk_layers(model: keras.Model) -> list[keras.Layer]:
    """Returns the layers that the final logits depend on."""
    found = {id(node.operation): node.operation for node in _nodes(model, [model.outputs[-1]])}
    return [layer for layer in found.values() if isinstance(layer, keras.Layer)]


def segments(model: keras.Model) -> list[keras.Model]:
    """Cuts a network with exits into the parts that run one after another.

    Segment k computes what exit k needs and no segment before it has computed: from the one tensor
    that the segment before hands over, or the input, to [logits of exit k, the tensor that it hands
    over]; the last one to the final logits alone. Layers are shared with `model`.

    Raises:
        ArchError: More than one tensor would have to pass from a segment to the next.
    """
    nodes = list(_nodes(model, model.outputs))
    computed: set[int] = set()
    parts = []
    start = model.inputs[0]
    for number, logits in enumerate(model.outputs, start=1):
        computed |= {id(node) for node in _nodes(model, [logits])}
        handed = {
            id(tensor): tensor
            for node in nodes
            if id(node) not in computed
            for tensor in node.input_tensors
            if id(_node_of(tensor)) in computed
        }
        outputs = [logits, *handed.values()]
        if len(handed) > 1:
            names = ", ".join(tensor._keras_history.operation.name for tensor in handed.values())
            raise ArchError(
                f"After exit {number} the rest of '{model.name}' needs more than one tensor: "
                f"{names}. Move the exit to a layer that everything after it depends on"
            )
        parts.append(_part(model, start, outputs, name=f"{model.name}_segment_{number}"))
        start = outputs[-1]
    return parts


def _part(
    model: keras.Model,
    start: keras.KerasTensor,
    outputs: list[keras.KerasTensor],
    *,
    name: str,
) -> keras.Model:
    """The functional model from one tensor of the graph to others, sharing its layers."""
    if start is model.inputs[0]:
        return keras.Model(start, outputs, name=name)
    x = keras.Input(batch_shape=start.shape, dtype=start.dtype)
    known = {id(start): x}
    for node in _nodes(model, outputs, known={id(start)}):
        args, kwargs = node.arguments.fill_in(known)
        results = keras.tree.flatten(node.operation(*args, **kwargs))
        known |= {id(old): new for old, new in zip(node.outputs, results, strict=True)}
    return keras.Model(x, [known[id(output)] for output in outputs], name=name)


def _nodes(
    model: keras.Model, outputs: Sequence[keras.KerasTensor], known: Collection[int] = ()
) -> Iterator[Any]:
    """Yields the calls that `outputs` follow from, sources first; not those behind tensors whose
    ids are `known`."""
    needed: set[int] = set()
    waiting = list(outputs)
    while waiting:
        tensor = waiting.pop()
        node = _node_of(tensor)
        if id(tensor) not in known and id(node) not in needed:
            needed.add(id(node))
            waiting += node.input_tensors
    by_depth = as_functional(model)._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from (node for node in by_depth[depth] if id(node) in needed)


def _node_of(tensor: keras.KerasTensor) -> Any:
    operation, node_index, _ = tensor._keras_history
    return operation._inbound_nodes[node_index]


def _has_kernel(operation: Any) -> bool:
    inside = layers(operation) if is_graph(operation) else [operation]
    return any(
        len(weight.shape) > 1
        for layer in inside
        if isinstance(layer, keras.Layer)
        for weight in layer.weights
    )
