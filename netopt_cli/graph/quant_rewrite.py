"""A network rewritten so that it computes what its int8 file computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from netopt_cli.errors import InputError
from netopt_cli.graph.calls import Edges, graphs
from netopt_cli.graph.drop_block import DropBlock2D
from netopt_cli.graph.quant_activation import FakeQuantize, RangeMethod
from netopt_cli.graph.quant_grid import Method
from netopt_cli.graph.quant_layer import FEW_BITS, QUANTIZABLE, QuantizedLayer
from netopt_cli.graph.rebuild import (
    activation_of,
    as_functional,
    is_graph,
    multiplies,
    plain_copy,
    rebuild,
)

BitsOf = Callable[[str], int | None]
"""Path of a kernel -> bits of its weights, None to leave them unrounded in training."""

_FUSED = {"relu", "relu6"}
"""Activations that the file computes in the operation before them."""

_FIXED_OUTPUT: Mapping[str, tuple[float, float]] = {
    "sigmoid": (0.0, 255 / 256),
    "softmax": (0.0, 255 / 256),
    "tanh": (-1.0, 127 / 128),
}
"""Ranges that LiteRT's kernels prescribe (its 8-bit quantization specification)."""

_SAME_VALUES = (
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Permute,
    keras.layers.RepeatVector,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    DropBlock2D,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.UpSampling1D,
    keras.layers.Identity,
)
"""Layers whose outputs are some of their inputs, or zero: already rounded."""

_SAME_VALUES_OPERATIONS = {
    *("BroadcastTo", "ExpandDims", "Flip", "GetItem", "Moveaxis", "Repeat", "Reshape"),
    *("Squeeze", "Swapaxes", "Tile", "Transpose"),
}
"""The same of bare operations of the graph."""

_SAME_RANGE = (keras.layers.AveragePooling1D, keras.layers.AveragePooling2D)
"""Layers whose kernels use the input's scale for the output."""

_OWN_RANGE = (
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Multiply,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
)
_ELEMENTWISE_OPERATIONS = {"Add", "Subtract", "Multiply"}
_FUSING = {keras.layers.Add, keras.layers.Subtract, keras.layers.Multiply}


def fake_quantized(
    model: keras.Model,
    *,
    bits_of: BitsOf = lambda path: 8,
    method: Method = "minmax",
    int4: bool = False,
) -> tuple[keras.Model, list[str]]:
    """Rewrites a model into one with rounded weights and activations; weights keep their paths.

    Activations are rounded at the tensors that the file holds as 8-bit integers: the inputs, what
    convolutions and dense layers give after BatchNorm and relu or relu6, sums, products,
    concatenations (whose inputs share one range), means, other activations before and behind.

    Args:
        model: Functional or Sequential, nested models and shared layers included; not changed.
        bits_of: See `BitsOf`.
        method: `minmax` ranges or `lsq`, trained ones: see `fake_quant`.
        int4: Whether a file stores weights of at most 4 bits as int4: see `QuantizedLayer`.

    Returns:
        The model, whose ranges are to be calibrated, and a line for each layer that is computed in
        float32 or not as was asked, with the reason.

    Raises:
        InputError: A layer would become a loop, which cannot be an int8 file.
    """
    rewrite = _Rewrite(as_functional(model), bits_of, method, int4)
    rewritten, _ = rebuild(model, clone=rewrite.clone, call=rewrite.call)
    return rewritten, rewrite.lines


@dataclass
class _Rewrite:
    model: keras.Model
    bits_of: BitsOf
    method: Method
    int4: bool
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._edges = Edges(self.model)
        self._top = {id(operation) for operation in self.model.operations}
        self._quantizers: dict[int, tuple[Any, FakeQuantize | None]] = {}
        self._inputs: dict[int, tuple[Any, Any]] = {}
        self._shared = shared_ranges(self.model)
        self._shared_quantizers: dict[int, FakeQuantize] = {}
        self._folded: set[int] = set()
        self._names: set[str] = set()

    def clone(self, layer: keras.Layer) -> keras.Layer | None:
        for inner in layer._flatten_layers() if isinstance(layer, keras.Layer) else ():
            if isinstance(inner, keras.layers.RNN) and not inner.unroll:
                raise InputError(
                    f"Layer '{inner.name}' ({type(inner).__name__}) is a loop in the exported "
                    "file, which int8 does not allow: build it with unroll=True"
                )
        if type(layer) not in QUANTIZABLE:
            return None
        norm = self._norm_behind(layer)
        bits = self._bits(layer)
        kind = activation_of(layer)
        changes = {} if kind in {"linear", *_FUSED} else {"activation": "linear"}
        quantized = QuantizedLayer(
            _built_copy(layer, **changes), norm and _built_copy(norm), bits, self.method, self.int4
        )
        quantized.build(layer.get_build_config()["input_shape"])
        quantized.init_steps()
        return quantized

    def call(self, layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if id(layer) in self._top:
            args, kwargs = keras.tree.map_structure(self._rounded_input, (args, kwargs))
        if id(layer) in self._folded:
            return self._after(layer, args[0])
        if isinstance(layer, keras.layers.Concatenate):
            return self._concatenated(layer, new_layer, args[0])
        if activation_of(layer) == "silu" and type(layer) not in QUANTIZABLE:
            return self._gated(layer, args[0])
        if isinstance(new_layer, QuantizedLayer):
            return self._activated(layer, new_layer(args[0], self._step_of(args[0])))
        return self._rounded_outputs(layer, new_layer(*args, **kwargs), args)

    # The parts of the file

    def _rounded_outputs(self, layer: keras.Layer, outputs: Any, args: tuple[Any, ...]) -> Any:
        if is_graph(layer):
            return outputs
        if _keeps_values(layer) or _keeps_range(layer):
            return self._in_range_of(args[0], layer, outputs)
        kind = activation_of(layer)
        is_activation = kind is not None and not multiplies(layer)
        if not is_activation and not isinstance(layer, _OWN_RANGE) and not _is_elementwise(layer):
            self.lines.append(
                f"{layer.name} ({type(layer).__name__}): computed in float32 in training; "
                "only its outputs are rounded"
            )
        return self._after(layer, outputs, kind)

    def _in_range_of(self, x: Any, layer: keras.Layer, outputs: Any) -> Any:
        quantizer = self._quantizer_of(x)
        if _keeps_values(layer):
            return self._remember(outputs, quantizer)
        if quantizer is None:
            return self._round(layer, outputs)
        return self._remember(quantizer(outputs, observe=False), quantizer)

    def _step_of(self, x: Any) -> Any:
        quantizer = self._quantizer_of(x)
        return quantizer and quantizer(x, step_only=True)

    def _activated(self, layer: keras.Layer, outputs: Any) -> Any:
        """What a dense layer or convolution gives, its own activation fused or separate."""
        kind = activation_of(layer)
        if kind in {"linear", *_FUSED}:
            return self._after(layer, outputs)
        outputs = self._round_alone(layer, outputs)
        if kind == "silu":
            return self._gated(layer, outputs)
        name = self._name(f"{layer.name}_act")
        return self._round(
            layer, keras.layers.Activation(layer.activation, name=name)(outputs), kind
        )

    def _norm_behind(self, layer: keras.Layer) -> keras.layers.BatchNormalization | None:
        """The BatchNorm that folds into a layer."""
        user = self._edges.only_user(layer)
        if (
            not isinstance(user, keras.layers.BatchNormalization)
            or activation_of(layer) != "linear"
            or self._edges.places(layer) != 1
            or self._edges.places(user) != 1
            or user.axis not in (-1, len(user.input.shape) - 1)
            or user.renorm
        ):
            return None
        self._folded.add(id(user))
        return user

    def _bits(self, layer: keras.Layer) -> int | None:
        path = layer.kernel.path
        bits = self.bits_of(path)
        if bits is None:
            self.lines.append(
                f"{path}: excluded: not rounded in training; the file rounds it to 8 bits"
            )
        elif bits < 8 and (type(layer) not in FEW_BITS or getattr(layer, "groups", 1) > 1):
            what = type(layer).__name__ if type(layer) not in FEW_BITS else "a grouped convolution"
            self.lines.append(f"{path}: 8 bits instead of {bits}: the file has none for {what}")
            return 8
        return bits

    def _after(self, layer: keras.Layer, outputs: Any, kind: str | None = None) -> Any:
        """Rounds the outputs of a layer, unless the next operation belongs to the same one."""
        user = self._edges.only_user(layer)
        private = user is not None and self._edges.places(layer) == self._edges.places(user) == 1
        if private and id(user) in self._folded:
            return outputs
        if private and _is_fused(user) and self._can_fuse(layer):
            return outputs
        return self._round(layer, outputs, kind=kind)

    def _can_fuse(self, layer: keras.Layer) -> bool:
        """Whether relu and relu6 become part of the operation that a layer is in the file."""
        if type(layer) in QUANTIZABLE:
            return activation_of(layer) == "linear"
        return type(layer) in _FUSING or _is_elementwise(layer) or id(layer) in self._folded

    def _concatenated(self, layer: keras.Layer, new_layer: keras.Layer, inputs: Any) -> Any:
        shared = self._shared_quantizer(layer)
        inputs = [x if self._quantizer_of(x) is shared else shared(x) for x in inputs]
        return self._remember(new_layer(inputs), shared)

    def _gated(self, layer: keras.Layer, x: Any) -> Any:
        """x × sigmoid(x), as the file has no operation of its own for it."""
        gate = keras.layers.Activation("sigmoid", name=self._name(f"{layer.name}_gate"))(x)
        gate = self._round_alone(layer, gate, kind="sigmoid")
        product = keras.layers.Multiply(name=self._name(f"{layer.name}_gated"))([x, gate])
        return self._round(layer, product)

    # Rounding

    def _rounded_input(self, x: Any) -> Any:
        """An input of the network as the file has it; any other argument as it is."""
        if (
            not isinstance(x, keras.KerasTensor)
            or not isinstance(x._keras_history.operation, keras.layers.InputLayer)
            or not keras.backend.is_float_dtype(x.dtype)
        ):
            return x
        if id(x) not in self._inputs:
            original = next(
                t._keras_history.operation
                for t in self.model.inputs
                if t._keras_history.operation.name == x._keras_history.operation.name
            )
            if id(original) in self._shared:
                quantizer = self._shared_quantizer(original)
            else:
                quantizer = FakeQuantize("fixed", name=self._name(f"{original.name}_range"))
            self._inputs[id(x)] = (x, self._remember(quantizer(x), quantizer))
        return self._inputs[id(x)][1]

    def _round(self, layer: keras.Layer, outputs: Any, kind: str | None = None) -> Any:
        """Rounds what the original layer gives."""
        if not isinstance(outputs, keras.KerasTensor):
            return outputs  # Several outputs, of a layer that is not known.
        if id(layer) in self._shared:
            quantizer = self._shared_quantizer(layer)
            return self._remember(quantizer(outputs), quantizer)
        return self._round_alone(layer, outputs, kind)

    def _round_alone(self, layer: keras.Layer, outputs: Any, kind: str | None = None) -> Any:
        limits = _FIXED_OUTPUT.get(kind or "")
        method: RangeMethod = "fixed" if limits else self.method
        quantizer = FakeQuantize(method, limits, name=self._name(f"{layer.name}_range"))
        return self._remember(quantizer(outputs), quantizer)

    def _shared_quantizer(self, layer: keras.Layer) -> FakeQuantize:
        """The one for a concatenation and all that goes into it.

        A moving average over values of several origins would be none of theirs, so it stays as
        calibrated.
        """
        first = self._shared[id(layer)]
        if id(first) not in self._shared_quantizers:
            method: RangeMethod = "lsq" if self.method == "lsq" else "fixed"
            name = self._name(f"{first.name}_range")
            self._shared_quantizers[id(first)] = FakeQuantize(method, name=name)
        return self._shared_quantizers[id(first)]

    def _remember(self, tensor: Any, quantizer: FakeQuantize | None) -> Any:
        for each in keras.tree.flatten(tensor):
            self._quantizers[id(each)] = (each, quantizer)  # holds it, so that its id stays its own
        return tensor

    def _quantizer_of(self, tensor: Any) -> FakeQuantize | None:
        return self._quantizers.get(id(tensor), (tensor, None))[1]

    def _name(self, wanted: str) -> str:
        name, number = wanted, 2
        while name in self._names:
            name, number = f"{wanted}_{number}", number + 1
        self._names.add(name)
        return name


def shared_ranges(model: keras.Model) -> dict[int, keras.Layer]:
    """Finds the layers whose outputs a file must hold with one scale: what is concatenated.

    LiteRT's concatenation does not change scales, and its converter inserts no operation that does.

    Returns:
        id of a concatenation, or of what is rounded and goes into one -> one of them that stands
        for all that share a range.
    """
    stands_for: dict[int, keras.Layer] = {}

    def representative(layer: keras.Layer) -> keras.Layer:
        while stands_for.setdefault(id(layer), layer) is not layer:
            layer = stands_for[id(layer)]
        return layer

    for graph in graphs(model):
        for layer in graph.operations:
            if isinstance(layer, keras.layers.Concatenate):
                for node in layer._inbound_nodes:
                    for tensor in node.input_tensors:
                        stands_for[id(representative(_rounded_at(tensor)))] = representative(layer)
    return {key: representative(layer) for key, layer in list(stands_for.items())}


def _rounded_at(tensor: keras.KerasTensor) -> keras.Layer:
    """The layer whose outputs a tensor of the original graph has the range of."""
    layer, node_index, tensor_index = tensor._keras_history
    if is_graph(layer):
        return _rounded_at(as_functional(layer).outputs[tensor_index])
    if _keeps_values(layer) or _keeps_range(layer):
        return _rounded_at(layer._inbound_nodes[node_index].input_tensors[0])
    return layer


def _built_copy(layer: keras.Layer, **changes: Any) -> keras.Layer:
    """A copy with its weights, built outside of any other layer, so that their paths stay."""
    copy = plain_copy(layer, **changes)
    copy.build_from_config(layer.get_build_config())
    copy.set_weights(layer.get_weights())
    return copy


def _is_fused(layer: keras.Layer) -> bool:
    if isinstance(layer, keras.layers.ReLU):
        bounded = layer.max_value in (None, 6)
        return bounded and not layer.negative_slope and not layer.threshold
    is_alone = isinstance(layer, keras.layers.Activation) or not isinstance(layer, keras.Layer)
    return is_alone and activation_of(layer) in _FUSED


def _keeps_values(layer: keras.Layer) -> bool:
    """Whether outputs are some of the inputs, or zero: rounded already."""
    if isinstance(layer, keras.layers.UpSampling2D):
        return layer.interpolation == "nearest"
    if not isinstance(layer, keras.Layer):
        return type(layer).__name__ in _SAME_VALUES_OPERATIONS
    is_linear = isinstance(layer, keras.layers.Activation) and activation_of(layer) == "linear"
    return is_linear or isinstance(layer, _SAME_VALUES)


def _keeps_range(layer: keras.Layer) -> bool:
    """Whether LiteRT's kernel uses the scale of the input for the output."""
    return isinstance(layer, (*_SAME_RANGE, keras.layers.UpSampling2D))


def _is_elementwise(layer: keras.Layer) -> bool:
    """Whether a bare operation of the graph is a sum or product of two tensors."""
    return not isinstance(layer, keras.Layer) and type(layer).__name__ in _ELEMENTWISE_OPERATIONS
