"""Rebuilding Keras functional graphs with some layers changed, weights kept."""

import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
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

BOUNDED = "relu6"


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
        if is_graph(layer):
            originals[id(layer)] = layer
            return layer  # Copied when it is called, since its input shape may have changed.
        if id(layer) not in pairs:
            with _scopes_of(layer):
                new_layer = clone(layer) or plain_copy(layer)
            pairs[id(layer)] = (layer, new_layer)
            originals[id(new_layer)] = layer
        return pairs[id(layer)][1]

    def call_copy(new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        layer = originals[id(new_layer)]

        def nested_model(*args: Any, **kwargs: Any) -> Any:
            if id(layer) not in nested:
                nested[id(layer)] = walk(layer, _inputs_like(layer, keras.tree.flatten(args[0])))
            with _scopes_of(layer):
                return nested[id(layer)](*args, **kwargs)

        if is_graph(layer):  # Built for what `call` gives it, which may have another shape.
            return call(layer, nested_model, *args, **kwargs)
        with _scopes_of(layer):
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
        if is_graph(operation):
            yield from layers(operation)
        else:
            yield operation


def activation_of(layer: keras.Layer) -> str | None:
    """Returns the name of a layer's activation, "custom" for a function of the user's.

    None when the layer is no built-in activation and has no built-in fused one.
    """
    if isinstance(layer, keras.layers.ReLU):
        if layer.max_value is not None and not layer.negative_slope:
            return BOUNDED
        return "leaky_relu" if layer.negative_slope else "relu"
    if multiplies(layer) or isinstance(layer, keras.layers.Activation):
        name = keras.activations.serialize(layer.activation)
        return name if isinstance(name, str) else "custom"
    if isinstance(layer, keras.Layer):
        return _ACTIVATIONS.get(type(layer))
    return _ACTIVATION_OPERATIONS.get(type(layer).__name__)


def plain_copy(layer: keras.Layer, /, **changes: Any) -> keras.Layer:
    """Returns a new layer of the same configuration, apart from `changes`, without weights yet."""
    if not isinstance(layer, keras.Layer) or isinstance(layer, keras.layers.Lambda):
        return layer  # It holds no state; and Keras makes no function from a configuration.
    config = {**layer.get_config(), **changes}
    if not isinstance(config.get("activation"), (str, type(None))):
        config["activation"] = layer.activation  # A user's function cannot be made from a name.
    try:
        return type(layer).from_config(config)
    except (NotImplementedError, TypeError) as error:
        reason = textwrap.shorten(str(error), width=200, placeholder=" …")
        raise ArchError(
            f"Layer '{layer.name}' ({type(layer).__name__}) cannot be rebuilt from its "
            f"configuration: {reason}"
        ) from error


def _scopes_of(layer: keras.Layer) -> ExitStack:
    """Returns the name scopes that a layer was built in, so that weights keep their paths.

    A Sequential model builds its layers in one of its own name.
    """
    stack = ExitStack()
    for name in (getattr(layer, "path", None) or "").split("/")[:-1]:
        stack.enter_context(keras.name_scope(name))
    return stack


def _backwards(graph: keras.Model) -> Iterator[keras.Layer]:
    """Yields layers from the last output, the final logits, towards the inputs, up to the first
    with many inputs."""
    tensor = graph.outputs[-1]
    while True:
        operation, node_index, _ = tensor._keras_history
        if isinstance(operation, keras.layers.InputLayer):
            return
        if is_graph(operation):
            yield from _backwards(as_functional(operation))
        else:
            yield operation
        parents = operation._inbound_nodes[node_index].input_tensors
        if len(parents) != 1:
            return
        tensor = parents[0]


def is_graph(layer: keras.Layer) -> bool:
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


def multiplies(layer: keras.Layer) -> bool:
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
