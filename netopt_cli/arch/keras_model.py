"""The user's own Keras model from a file, or a network of keras.applications."""

import inspect
import re
from collections.abc import Callable
from typing import Any, Literal

import keras

from netopt_cli import blocks
from netopt_cli.errors import ArchError, did_you_mean
from netopt_cli.graph.rebuild import (
    activation_of,
    as_functional,
    head,
    plain_copy,
    rebuild,
    tail,
)
from netopt_cli.loaded_network import first_line, load_network

_PROBABILITIES = {"softmax", "sigmoid", "log_softmax"}
_PREPROCESSING = (keras.layers.Rescaling, keras.layers.Normalization)


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    path: str | None = None,
    application: str | None = None,
    weights: Literal["imagenet"] | None = None,
    resize: blocks.Count | None = None,
    head: Literal["auto", "keep"] = "auto",
) -> keras.Model:
    """Loads a model and fits it to the data: logits for `classes`, inputs of `shape`.

    A final softmax or sigmoid is taken away. When the classes differ, the head — the last Dense or
    convolution — is replaced by a new one, `logits`. All other weights are kept. A model that does
    not depend on the size of its input (convolutions and global pooling) is built anew for `shape`.

    The data comes normalized, so the Rescaling and Normalization layers of some applications are
    left out; those of a file stay.

    Args:
        shape: Shape of one sample, channels last.
        classes: Number of logits.
        path: A `.keras` or legacy `.h5` file, or the directory of a run, whose last stage is meant.
            It is loaded in safe mode: a Lambda layer, which can run any code, is refused.
        application: Name in keras.applications, in any case: `MobileNetV2`.
        weights: Of the application: None starts with new weights and takes any number of channels;
            `imagenet` downloads trained ones, which need 3 channels.
        resize: Side to which images are resized, bilinearly, by a layer of the model; None inserts
            nothing.
        head: `auto` replaces the head when the classes differ, `keep` refuses such a model.

    Returns:
        A model from float32 (batch, *shape) to logits (batch, classes).

    Raises:
        ArchError: When not exactly one of `path` and `application` is given; the file is missing,
            damaged or unsafe; the model has another form than one input to (batch, classes); the
            shapes do not fit; or weights cannot be downloaded.
    """
    if (path is None) == (application is None):
        raise ArchError(
            "keras_model needs exactly one of arch.path (a .keras or .h5 file) and "
            f"arch.application (a keras.applications name). Received: path={path}, "
            f"application={application}"
        )
    if weights is not None and application is None:
        raise ArchError(
            f"arch.weights is for arch.application; a file brings its own. Received: "
            f"weights={weights}, path={path}"
        )
    if resize is not None or application is not None:
        blocks.require_image(shape, arch="keras_model")
    inner_shape = shape if resize is None else (resize, resize, shape[-1])

    if path is not None:
        model = load_network(path, inner_shape)
    else:
        model = _application(str(application), weights, inner_shape, classes)
    return _fit_to_data(
        model,
        shape,
        classes,
        resize=resize,
        drop_preprocessing=application is not None,
        may_replace=head == "auto",
    )


def _application(
    name: str, weights: Literal["imagenet"] | None, shape: tuple[int, ...], classes: int
) -> keras.Model:
    known = {
        key.casefold(): function
        for key, function in inspect.getmembers(keras.applications, inspect.isfunction)
    }
    if name.casefold() not in known:
        names = [function.__name__ for function in known.values()]
        raise ArchError(
            f"arch.application is not in keras.applications. Received: application={name}."
            f"{did_you_mean(name, names)}"
        )
    function = known[name.casefold()]
    if weights is None:
        return _new_application(function, shape, classes)
    if shape[-1] != 3:
        raise ArchError(
            f"arch.weights=imagenet needs images of 3 channels. Received: shape={shape}. "
            "Set arch.weights=null for new weights"
        )
    try:
        return function(weights=weights)
    except Exception as error:  # keras.utils.get_file raises a bare Exception when offline.
        raise ArchError(
            f"The imagenet weights of {function.__name__} cannot be downloaded. Go online once, or "
            f"set arch.weights=null for new weights ({first_line(error)})"
        ) from error


def _new_application(
    function: Callable[..., keras.Model], shape: tuple[int, ...], classes: int
) -> keras.Model:
    try:
        return function(
            weights=None, input_shape=shape, classes=classes, classifier_activation=None
        )
    except ValueError as error:
        minimum = re.search(r"at least (\d+)x\d+", str(error))
        if minimum is None:
            raise ArchError(
                f"{function.__name__} cannot be built for images of shape {shape}: "
                f"{first_line(error)}"
            ) from error
        side = minimum[1]
        raise ArchError(
            f"{function.__name__} needs images of at least {side}x{side}. "
            f"Received: {shape[0]}x{shape[1]}. Set arch.resize={side}, or use a smaller arch"
        ) from error


def _fit_to_data(
    model: keras.Model,
    shape: tuple[int, ...],
    classes: int,
    *,
    resize: int | None,
    drop_preprocessing: bool,
    may_replace: bool,
) -> keras.Model:
    """Rebuilds a model on the data's shape, with logits for the data's classes as its output."""
    graph = as_functional(model)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or len(graph.outputs[0].shape) != 2:
        raise ArchError(
            f"Model '{model.name}' must have one input and one output of shape (batch, classes). "
            f"Received: inputs={[i.shape for i in graph.inputs]}, "
            f"outputs={[o.shape for o in graph.outputs]}"
        )
    old_head = head(graph)
    units = graph.outputs[0].shape[-1]
    replaces = units != classes
    if replaces and not may_replace:
        raise ArchError(
            f"Model '{model.name}' has {units} outputs, the data {classes} classes: its head would "
            "have to be new, and untrained. head=auto with some epochs of training allows that"
        )
    if replaces and (old_head is None or _width_argument(old_head) is None):
        raise ArchError(
            f"Model '{model.name}' has {units} outputs, the data {classes} classes, and it has no "
            "Dense or convolution head that could be replaced"
        )
    after_head = tail(graph) if old_head is not None else []

    inputs = keras.Input(shape, name="input")
    seen = inputs
    if resize is not None:
        # Said, because Resizing's own default, True, would reach the layers after it.
        resizing = keras.layers.Resizing(resize, resize, name="resize")
        seen = resizing(inputs, training=False)

    def clone(layer: keras.Layer) -> keras.Layer | None:
        if layer is old_head:
            changes: dict[str, Any] = {"dtype": "float32"}
            if activation_of(layer) in _PROBABILITIES:
                changes["activation"] = "linear"
            if replaces:
                changes |= {"name": "logits", str(_width_argument(layer)): classes}
            return plain_copy(layer, **changes)
        if replaces and layer in after_head and isinstance(layer, keras.layers.Reshape):
            target = [classes if size == units else size for size in layer.target_shape]
            return plain_copy(layer, target_shape=target)
        return None

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        args = keras.tree.map_structure(lambda x: seen if x is inputs else x, args)
        is_probability = layer in after_head and activation_of(layer) in _PROBABILITIES
        if is_probability or (drop_preprocessing and isinstance(layer, _PREPROCESSING)):
            return args[0]
        return new_layer(*args, **kwargs)

    try:
        rebuilt, unfit = rebuild(
            graph,
            clone=clone,
            call=call,
            inputs=keras.tree.map_structure(lambda _: inputs, graph.input),
        )
    except ValueError as error:
        raise ArchError(f"{_misfit(graph, seen)}: {first_line(error)}") from error
    unfit = [
        name for name in unfit if not (replaces and old_head is not None and name == old_head.name)
    ]
    if unfit:
        raise ArchError(f"{_misfit(graph, seen)}: the weights of '{unfit[0]}' depend on it")
    return keras.Model(inputs, rebuilt.outputs[0], name="keras_model")


def _width_argument(layer: keras.Layer) -> str | None:
    """Returns the argument of a head that says how many outputs it has."""
    config = layer.get_config()
    return next((key for key in ("units", "filters") if key in config), None)


def _misfit(graph: keras.Model, given: keras.KerasTensor) -> str:
    made_for = graph.inputs[0].shape[1:]
    advice = ""
    if len(made_for) == 3 and made_for[-1] == given.shape[-1] and made_for[0] is not None:
        advice = f" Set arch.resize={made_for[0]}."
    return (
        f"Model '{graph.name}' was made for inputs of shape {made_for} and cannot be rebuilt for "
        f"{given.shape[1:]}.{advice} Reason"
    )
