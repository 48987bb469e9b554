"""Finding the residual blocks of any functional graph."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import keras

from netopt_cli.graph.calls import Edges, calls_by_layer, macs


@dataclass(frozen=True)
class ResidualBlock:
    """y = x + branch(x), with nothing else reading what the branch computes.

    Attributes:
        add: The layer that adds.
        shortcut: Which of its two inputs is x itself.
        x: The tensor that the block reads.
        branch: The tensor that is added to it.
        layers: Of the branch.
        macs: Of the branch, at one sample.
    """

    add: keras.layers.Add
    shortcut: int
    x: keras.KerasTensor = field(repr=False)
    branch: keras.KerasTensor = field(repr=False)
    layers: tuple[keras.layers.Layer, ...] = field(repr=False)
    macs: int


def residual_blocks(model: keras.Model) -> list[ResidualBlock]:
    """Returns the blocks with an identity branch, from the input on.

    A block whose shortcut changes the shape has none, and layers called in several places cannot be
    left out; blocks inside nested models are not looked for.
    """
    users: dict[int, list[keras.layers.Layer]] = defaultdict(list)
    for operation in model.operations:
        for node in operation._inbound_nodes:
            for tensor in node.input_tensors:
                users[id(tensor)].append(operation)
    outputs = {id(tensor) for tensor in model.outputs}
    edges, its_calls = Edges(model), calls_by_layer(model)
    found = []
    for layer in model.operations:
        if not isinstance(layer, keras.layers.Add) or edges.places(layer) != 1:
            continue
        inputs = layer._inbound_nodes[0].input_tensors
        if len(inputs) != 2:
            continue
        for shortcut in (0, 1):
            x, branch = inputs[shortcut], inputs[1 - shortcut]
            inner = _between(x, branch)
            if not inner or any(edges.places(one) != 1 for one in inner):
                continue
            made = [tensor for one in inner for tensor in one._inbound_nodes[0].output_tensors]
            reads = [user for tensor in made for user in users[id(tensor)]]
            if outputs.isdisjoint(map(id, made)) and all(u in inner or u is layer for u in reads):
                cost = sum(macs(one, its_calls[id(one)]) for one in inner)
                found.append(ResidualBlock(layer, shortcut, x, branch, tuple(inner), cost))
                break
    return found


def _between(x: keras.KerasTensor, end: keras.KerasTensor) -> list[keras.layers.Layer]:
    """The layers on all ways from `x` to `end`; none when a way does not start at `x`."""
    inner: dict[int, keras.layers.Layer] = {}
    waiting = [end]
    while waiting:
        tensor = waiting.pop()
        if tensor is x:
            continue
        layer, node_index, _ = tensor._keras_history
        if isinstance(layer, keras.layers.InputLayer) or not isinstance(layer, keras.layers.Layer):
            return []
        if id(layer) not in inner:
            inner[id(layer)] = layer
            waiting += layer._inbound_nodes[node_index].input_tensors
    return list(inner.values())
