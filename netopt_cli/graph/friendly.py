"""Networks made of blocks that quantize well: bounded activations, BatchNorm that folds."""

from dataclasses import dataclass, field
from typing import Any

import keras

from netopt_cli.graph.rebuild import (
    BOUNDED,
    activation_of,
    as_functional,
    is_graph,
    multiplies,
    plain_copy,
    rebuild,
)

_NOT_FOLDABLE = (
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.UnitNormalization,
    keras.layers.RMSNormalization,
)
# Bounded already, or (softmax) meaningless when clipped.
_LEFT_ACTIVATIONS = {"linear", "relu6", "sigmoid", "hard_sigmoid", "softmax", "log_softmax"}


def quantization_friendly(model: keras.Model) -> tuple[keras.Model, list[str]]:
    """Rewrites a model into one that quantizes well; use it before training.

    Unbounded hidden activations become relu6, so that 8 bits cover a fixed range. A BatchNorm that
    follows the activation of a convolution or dense layer goes before it, so that it folds into
    their weights on export (Jacob et al. 2018; Krishnamoorthi 2018). Weights are copied, but the
    function the model computes is another one.

    Left as they are: the outputs, softmax and sigmoid (bounded; gates of squeeze-and-excitation),
    tanh that gates a product, recurrent and attention layers, custom layers and activations.

    Args:
        model: Functional or Sequential, nested models and shared layers included.

    Returns:
        The rebuilt model and what was changed or left and why, a line each; empty when the model
        was friendly already.
    """
    plan = _Plan()
    plan.read(as_functional(model), is_output=True)

    def clone(layer: keras.Layer) -> keras.Layer | None:
        if id(layer) in plan.moved and multiplies(layer):
            return plain_copy(layer, activation="linear")
        if id(layer) not in plan.bounded:
            return None
        if multiplies(layer):
            return plain_copy(layer, activation=BOUNDED)
        return keras.layers.Activation(BOUNDED, name=layer.name)

    new_activations: dict[int, keras.Layer] = {}

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if id(layer) in plan.moved and not multiplies(layer):
            new_activations[id(layer)] = new_layer
            return args[0]
        outputs = new_layer(*args, **kwargs)
        mover = plan.behind.get(id(layer))
        if mover is None:
            return outputs
        if multiplies(mover):
            kind = BOUNDED if id(mover) in plan.bounded else mover.activation
            return keras.layers.Activation(kind, name=f"{mover.name}_act")(outputs)
        return new_activations[id(mover)](outputs)

    rebuilt, _ = rebuild(model, clone=clone, call=call)
    return rebuilt, plan.lines


@dataclass
class _Plan:
    """What `quantization_friendly` will do; layers by identity, since names repeat when nested."""

    bounded: set[int] = field(default_factory=set)
    """Layers whose activation becomes relu6."""
    moved: set[int] = field(default_factory=set)
    """Layers whose activation goes behind the BatchNorm that follows it."""
    behind: dict[int, keras.Layer] = field(default_factory=dict)
    """BatchNorm -> the layer of `moved` whose activation comes after it."""
    lines: list[str] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def read(self, graph: keras.Model, *, is_output: bool) -> None:
        edges = _Edges(graph)
        for layer in graph.operations:
            if id(layer) in self.seen:
                continue
            self.seen.add(id(layer))
            is_end = is_output and edges.is_output(layer)
            if is_graph(layer):
                self.read(as_functional(layer), is_output=is_end)
            elif isinstance(layer, keras.layers.BatchNormalization):
                self._read_batch_norm(layer, edges)
            elif isinstance(layer, _NOT_FOLDABLE):
                self._leave(layer, f"{type(layer).__name__} cannot be folded")
            elif isinstance(layer, (keras.layers.Wrapper, keras.layers.RNN)):
                self._leave(layer, f"{type(layer).__name__} is not looked into")
            else:
                self._read_activation(layer, edges, is_end)

    def _read_activation(self, layer: keras.Layer, edges: "_Edges", is_end: bool) -> None:
        kind = activation_of(layer)
        if kind is None or kind in _LEFT_ACTIVATIONS:
            return
        if kind == "custom":
            self._leave(layer, "its activation is a custom function")
        elif is_end:
            self._leave(layer, f"its {kind} gives the outputs")
        elif kind == "tanh" and any(
            isinstance(user, keras.layers.Multiply) for user in edges.users(layer)
        ):
            self._leave(layer, "its tanh gates a product")
        else:
            self.bounded.add(id(layer))
            self.lines.append(f"{layer.name}: {kind} → {BOUNDED}")

    def _read_batch_norm(self, layer: keras.Layer, edges: "_Edges") -> None:
        source = edges.only_source(layer)
        if source is None or activation_of(source) is None:
            multiplying = None
        elif multiplies(source):
            multiplying = source
        else:
            multiplying = edges.only_source(source)
        if multiplying is None or not multiplies(multiplying):
            self._leave(layer, "it follows no convolution or dense layer, and cannot be folded")
            return
        if multiplying is source and activation_of(source) == "linear":
            return  # Folds as it is.
        private = edges.is_private(source) and edges.is_private(multiplying)
        activated_twice = multiplying is not source and activation_of(multiplying) != "linear"
        if not private or activated_twice:
            self._leave(layer, "the activation before it has other users, and cannot be moved")
            return
        self.moved.add(id(source))
        self.behind[id(layer)] = source
        self.lines.append(
            f"{layer.name}: moved before the activation of {multiplying.name}, so that it folds"
        )

    def _leave(self, layer: keras.Layer, why: str) -> None:
        self.lines.append(f"{layer.name}: left as it is, {why}")


class _Edges:
    """Who feeds whom in one functional graph, nested models counted as one layer."""

    def __init__(self, graph: keras.Model) -> None:
        self._sources: dict[int, list[keras.Layer]] = {}
        self._users: dict[int, list[keras.Layer]] = {}
        self._calls: dict[int, int] = {}
        tensors = list(graph.outputs)
        self._outputs = {id(tensor._keras_history.operation) for tensor in tensors}
        seen = set()
        while tensors:
            history = tensors.pop()._keras_history
            node = history.operation._inbound_nodes[history.node_index]
            if id(node) in seen:
                continue
            seen.add(id(node))
            layer = history.operation
            self._calls[id(layer)] = self._calls.get(id(layer), 0) + 1
            for tensor in node.input_tensors:
                source = tensor._keras_history.operation
                self._sources.setdefault(id(layer), []).append(source)
                self._users.setdefault(id(source), []).append(layer)
                tensors.append(tensor)

    def is_output(self, layer: keras.Layer) -> bool:
        return id(layer) in self._outputs

    def users(self, layer: keras.Layer) -> list[keras.Layer]:
        return self._users.get(id(layer), [])

    def only_source(self, layer: keras.Layer) -> keras.Layer | None:
        """Returns what feeds a layer that has one input and is called once."""
        sources = self._sources.get(id(layer), [])
        return sources[0] if len(sources) == 1 else None

    def is_private(self, layer: keras.Layer) -> bool:
        """Whether a layer is called once and its output has one user."""
        return (
            self._calls[id(layer)] == 1
            and len(self.users(layer)) == 1
            and not self.is_output(layer)
        )
