"""Rebuilding Keras functional graphs with some layers changed, weights kept.

Every rewrite returns a new model and says in plain words what it changed and what it left.
"""

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras

from netopt_cli.errors import ArchError

Clone = Callable[[keras.Layer], keras.Layer | None]
"""Original layer -> the layer that stands for it, or None for a plain copy."""

Call = Callable[..., Any]
"""(original layer, its new layer, *arguments) -> outputs: how the new layer is called."""

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
_MULTIPLYING = (*_CONVOLUTIONS, keras.layers.Dense, keras.layers.EinsumDense)
_NOT_FOLDABLE = (
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.UnitNormalization,
    keras.layers.RMSNormalization,
)
_DROPOUTS = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
_AFTER_HEAD = (
    keras.layers.Activation,
    keras.layers.Softmax,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.GlobalAveragePooling2D,
)
_ACTIVATIONS = {
    keras.layers.LeakyReLU: "leaky_relu",
    keras.layers.PReLU: "prelu",
    keras.layers.ELU: "elu",
    keras.layers.Softmax: "softmax",
}
# Bare operations in a functional graph, by class: `keras.ops.relu(x)`.
_ACTIVATION_OPERATIONS = {
    "Celu": "celu",
    "Elu": "elu",
    "Gelu": "gelu",
    "HardSilu": "hard_silu",
    "LeakyRelu": "leaky_relu",
    "Mish": "mish",
    "Relu": "relu",
    "Selu": "selu",
    "Silu": "silu",
    "Softplus": "softplus",
    "Tanh": "tanh",
}
# Bounded already, or (softmax) meaningless when clipped.
_LEFT_ACTIVATIONS = {"linear", "relu6", "sigmoid", "hard_sigmoid", "softmax", "log_softmax"}
_BOUNDED = "relu6"


def as_functional(model: keras.Model) -> keras.Model:
    """Returns the functional graph of a functional or built Sequential model, sharing its layers.

    Raises:
        ArchError: When the model is subclassed or not built yet.
    """
    if isinstance(model, keras.Sequential):
        if not model.built or not model.inputs:
            raise ArchError(
                f"Model '{model.name}' is a Sequential model without a known input shape. "
                "Add keras.Input(shape) as its first layer and save it again"
            )
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not isinstance(model, keras.Function):
        raise ArchError(
            f"Model '{model.name}' is a subclassed model ({type(model).__name__}): its graph is "
            "not known. Use a functional or Sequential model"
        )
    return model


def rebuild(
    model: keras.Model,
    *,
    clone: Clone = lambda layer: None,
    call: Call = lambda layer, new_layer, *args, **kwargs: new_layer(*args, **kwargs),
    inputs: Any = None,
) -> tuple[keras.Model, list[str]]:
    """Builds the graph of a model anew, nested models and shared layers included.

    Args:
        model: Functional or built Sequential; it is not changed.
        clone: Says which layer stands for an original one; asked once a layer.
        call: Says how a new layer is called, so that layers can be left out, added or moved.
        inputs: The new inputs, in the structure of the old ones; by default inputs like the old.

    Returns:
        A functional model, and the names of the layers whose weights could not be copied from
        their originals because the shapes differ. A layer of `clone` that has another class than
        its original starts with its own weights and is not among them.

    Raises:
        ArchError: When a model is subclassed or a layer cannot be rebuilt from its configuration.
    """
    pairs: dict[int, tuple[keras.Layer, keras.Layer]] = {}
    originals: dict[int, keras.Layer] = {}
    nested: dict[int, keras.Model] = {}

    def copy(layer: keras.Layer) -> keras.Layer:
        if _is_graph(layer):
            originals[id(layer)] = layer
            return layer  # Copied when it is called, since its input shape may have changed.
        if id(layer) not in pairs:
            new_layer = clone(layer) or plain_copy(layer)
            pairs[id(layer)] = (layer, new_layer)
            originals[id(new_layer)] = layer
        return pairs[id(layer)][1]

    def call_copy(new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        layer = originals[id(new_layer)]
        if _is_graph(layer):
            if id(layer) not in nested:
                nested[id(layer)] = walk(layer, _inputs_like(layer, keras.tree.flatten(args[0])))
            new_layer = nested[id(layer)]
        return call(layer, new_layer, *args, **kwargs)

    def walk(model: keras.Model, inputs: Any) -> keras.Model:
        return keras.models.clone_model(
            as_functional(model),
            input_tensors=inputs,
            clone_function=copy,
            call_function=call_copy,
        )

    rebuilt = walk(model, _inputs_like(model) if inputs is None else inputs)
    return rebuilt, [
        layer.name for layer, new_layer in pairs.values() if not _copy_weights(layer, new_layer)
    ]


def head(model: keras.Model) -> keras.Layer | None:
    """Returns the Dense or convolution that computes the outputs, or None when there is none.

    Activations, dropout, reshaping and pooling may follow it; nested models are looked into.
    """
    for operation in _backwards(as_functional(model)):
        if isinstance(operation, _MULTIPLYING):
            return operation
        if not isinstance(operation, _AFTER_HEAD):
            return None
    return None


def tail(model: keras.Model) -> list[keras.Layer]:
    """Returns the layers between the head and the outputs, the last one first."""
    last = head(model)
    after: list[keras.Layer] = []
    for operation in _backwards(as_functional(model)):
        if operation is last:
            break
        after.append(operation)
    return after


def layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Yields the layers of a model and of the models nested in it."""
    for operation in as_functional(model).operations:
        if _is_graph(operation):
            yield from layers(operation)
        else:
            yield operation


def activation_of(layer: keras.Layer) -> str | None:
    """Returns the name of a layer's activation, "custom" for a function of the user's.

    None when the layer is no built-in activation and has no built-in fused one.
    """
    if isinstance(layer, keras.layers.ReLU):
        if layer.max_value is not None and not layer.negative_slope:
            return _BOUNDED
        return "leaky_relu" if layer.negative_slope else "relu"
    if _multiplies(layer) or isinstance(layer, keras.layers.Activation):
        name = keras.activations.serialize(layer.activation)
        return name if isinstance(name, str) else "custom"
    if isinstance(layer, keras.Layer):
        return _ACTIVATIONS.get(type(layer))
    return _ACTIVATION_OPERATIONS.get(type(layer).__name__)


def plain_copy(layer: keras.Layer, **changes: Any) -> keras.Layer:
    """Returns a new layer of the same configuration, apart from `changes`, without weights yet."""
    if not isinstance(layer, keras.Layer):
        return layer  # A bare operation holds no state.
    try:
        return type(layer).from_config({**layer.get_config(), **changes})
    except (NotImplementedError, TypeError) as error:
        reason = textwrap.shorten(str(error), width=200, placeholder=" …")
        raise ArchError(
            f"Layer '{layer.name}' ({type(layer).__name__}) cannot be rebuilt from its "
            f"configuration: {reason}"
        ) from error


def with_dropout(model: keras.Model, rate: float) -> tuple[keras.Model, list[str]]:
    """Sets the rate of every dropout layer, or inserts one before the head when there is none.

    Weights are kept, so that the outputs at inference do not change.

    Args:
        model: Functional or Sequential, nested models included.
        rate: In [0, 1).

    Returns:
        The rebuilt model and what was changed, a line each; no line when nothing had to change.

    Raises:
        ArchError: When the rate is out of range, or there is neither dropout nor a head.
    """
    if not 0 <= rate < 1:
        raise ArchError(f"The dropout rate must be in [0, 1). Received: rate={rate}")
    existing = [layer for layer in layers(model) if isinstance(layer, _DROPOUTS)]
    changes = [
        f"{layer.name}: dropout rate {layer.rate:g} → {rate:g}"
        for layer in existing
        if layer.rate != rate
    ]
    last = head(model)
    inserts = not existing and rate > 0
    if inserts:
        if last is None:
            raise ArchError(
                f"Model '{model.name}' has no dropout layer and no Dense or convolution head to "
                "insert one before"
            )
        changes.append(f"{last.name}_dropout: inserted before {last.name}, rate {rate:g}")

    def clone(layer: keras.Layer) -> keras.Layer | None:
        return plain_copy(layer, rate=rate) if isinstance(layer, _DROPOUTS) else None

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if inserts and layer is last:
            x, *others = args
            args = (keras.layers.Dropout(rate, name=f"{last.name}_dropout")(x), *others)
        return new_layer(*args, **kwargs)

    rebuilt, _ = rebuild(model, clone=clone, call=call)
    return rebuilt, changes


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
        if id(layer) in plan.moved and _multiplies(layer):
            return plain_copy(layer, activation="linear")
        if id(layer) not in plan.bounded:
            return None
        if _multiplies(layer):
            return plain_copy(layer, activation=_BOUNDED)
        return keras.layers.Activation(_BOUNDED, name=layer.name)

    new_activations: dict[int, keras.Layer] = {}

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if id(layer) in plan.moved and not _multiplies(layer):
            new_activations[id(layer)] = new_layer
            return args[0]
        outputs = new_layer(*args, **kwargs)
        mover = plan.behind.get(id(layer))
        if mover is None:
            return outputs
        if _multiplies(mover):
            kind = _BOUNDED if id(mover) in plan.bounded else mover.activation
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
            if _is_graph(layer):
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
            self.lines.append(f"{layer.name}: {kind} → {_BOUNDED}")

    def _read_batch_norm(self, layer: keras.Layer, edges: "_Edges") -> None:
        source = edges.only_source(layer)
        if source is None or activation_of(source) is None:
            multiplying = None
        elif _multiplies(source):
            multiplying = source
        else:
            multiplying = edges.only_source(source)
        if multiplying is None or not _multiplies(multiplying):
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


def _backwards(graph: keras.Model) -> Iterator[keras.Layer]:
    """Yields layers from the first output towards the inputs, up to the first with many inputs."""
    tensor = graph.outputs[0]
    while True:
        operation, node_index, _ = tensor._keras_history
        if isinstance(operation, keras.layers.InputLayer):
            return
        if _is_graph(operation):
            yield from _backwards(as_functional(operation))
        else:
            yield operation
        parents = operation._inbound_nodes[node_index].input_tensors
        if len(parents) != 1:
            return
        tensor = parents[0]


def _is_graph(layer: keras.Layer) -> bool:
    return isinstance(layer, (keras.Sequential, keras.Function))


def _inputs_like(model: keras.Model, given: list[keras.KerasTensor] | None = None) -> Any:
    """Returns new inputs for a model; fixed sizes are taken from the given tensors."""
    graph = as_functional(model)
    tensors = [
        keras.Input(
            batch_shape=[size and new for size, new in zip(own.shape, like.shape, strict=True)],
            dtype=own.dtype,
            name=own._keras_history.operation.name,
        )
        for own, like in zip(graph.inputs, given or graph.inputs, strict=True)
    ]
    return keras.tree.pack_sequence_as(graph.input, tensors)


def _multiplies(layer: keras.Layer) -> bool:
    """Whether a layer is a built-in convolution or dense layer; a subclass may be anything."""
    return type(layer) in _MULTIPLYING


def _copy_weights(layer: keras.Layer, new_layer: keras.Layer) -> bool:
    """Copies weights between layers of one class; returns False when their shapes differ."""
    if type(layer) is not type(new_layer) or not isinstance(layer, keras.Layer):
        return True
    if layer.built and not new_layer.built:
        return True  # `call` left it out.
    if [w.shape for w in layer.weights] != [w.shape for w in new_layer.weights]:
        return False
    new_layer.set_weights(layer.get_weights())
    return True
