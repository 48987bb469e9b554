"""Layers that compute in float32 what the exported int8 file computes in integers.

The arithmetic is that of LiteRT's 8-bit specification: weights are symmetric integers of a narrow
range with a scale for each output channel, activations are 8-bit integers with one scale and zero
point (Jacob et al. 2018, arXiv:1712.05877). Rounding passes gradients straight through.

BatchNorm is folded *exactly*: with one symmetric scale a channel, rounding commutes with a factor a
channel, so that BatchNorm of a convolution with rounded weights is the convolution with rounded
folded weights, by batch statistics as well as by moving ones. No correction factors and no second
convolution are needed (Krishnamoorthi 2018, arXiv:1806.08342, section 3.2.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

Method = Literal["minmax", "lsq"]
RangeMethod = Literal["minmax", "lsq", "fixed"]

_LEVELS = 255
_RANGE_MOMENTUM = 0.99
# Below them the file's 32-bit biases, in units of input step times weight step, would overflow.
_SMALLEST_RANGE = 1e-4
_SMALLEST_CHANNEL = 1e-5
_SMALLEST_KERNEL = 1e-6

_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
FEW_BITS = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
"""Layers whose weights a file can hold in fewer than 8 bits."""
QUANTIZABLE = (*FEW_BITS, keras.layers.Conv1D, *_TRANSPOSED, keras.layers.DepthwiseConv1D)
"""Layers whose weights can be fake-quantized."""


def round_to_grid(x: tf.Tensor, step: tf.Tensor, low: Any, high: Any) -> tf.Tensor:
    """step × integer nearest to x / step in [low, high], any shapes that broadcast.

    The gradient of the rounding is 1. That of `step` is then the one of learned step size
    quantization (Esser et al. 2020, arXiv:1902.08153, equation 3), that of `x` is 0 outside.
    """
    clipped = tf.clip_by_value(x / step, low, high)
    return step * (clipped + tf.stop_gradient(tf.round(clipped) - clipped))


def least_error_step(kernel: np.ndarray, bits: int) -> np.ndarray:
    """Returns the steps of the least squared error among 40 fractions of the largest weight.

    Args:
        kernel: float32 (weights, channels).

    Returns:
        float32 (channels,).
    """
    levels = 2 ** (bits - 1) - 1
    largest = _floored(np.abs(kernel).max(axis=0))
    candidates = largest / levels * np.linspace(0.2, 1.0, 40, dtype=np.float32)[:, None]
    errors = [
        np.square(kernel - step * np.clip(np.rint(kernel / step), -levels, levels)).sum(axis=0)
        for step in candidates
    ]
    return candidates[np.argmin(errors, axis=0), np.arange(kernel.shape[1])]


def _floored(largest: Any) -> Any:
    """The largest weight of each channel (channels,), away from zero."""
    floor = np.maximum if isinstance(largest, np.ndarray) else tf.maximum
    whole = largest.max() if isinstance(largest, np.ndarray) else tf.reduce_max(largest)
    return floor(largest, floor(_SMALLEST_CHANNEL * whole, _SMALLEST_KERNEL))


def _log_with_scaled_gradient(variable: keras.Variable, count: int, levels: int) -> tf.Tensor:
    """exp(variable), its gradient divided by √(count × levels) (Esser et al. 2020, section 2.2).

    Steps are trained by their logarithm (Jain et al. 2020, arXiv:1903.08066): they stay positive,
    and Adam changes large and small ones in proportion.
    """
    value = tf.convert_to_tensor(variable.value)
    scale = 1.0 / math.sqrt(count * levels)
    return tf.exp(value * scale + tf.stop_gradient(value * (1.0 - scale)))


@keras.saving.register_keras_serializable(package="netopt")
class FakeQuantize(keras.layers.Layer):
    """Rounds activations to 8 bits, where the file holds them in 8 bits.

    Several tensors can be given as a list: they share one range, as the inputs of a concatenation.

    Args:
        method: `minmax`: the range is a moving average of the batches' (until `frozen`); `lsq`: a
            trained factor scales the calibrated range; `fixed`: the range stays.
        limits: The range, when it is known: then it is not calibrated.
    """

    def __init__(
        self,
        method: RangeMethod = "minmax",
        limits: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.method = method
        self.limits = None if limits is None else tuple(limits)
        self.seen: tuple[float, float] | None = None
        self._calibrating = False

    def build(self, input_shape: Any) -> None:
        low, high = self.limits or (-1.0, 1.0)
        self.range = self.add_weight(shape=(2,), trainable=False, name="range")
        self.range.assign([low, high])
        if self.method == "minmax":
            self.frozen = self.add_weight(shape=(), initializer="zeros", trainable=False,
                                          name="frozen")  # fmt: skip
        if self.method == "lsq":
            self.log_scale = self.add_weight(shape=(), initializer="zeros", name="log_scale")

    def call(
        self,
        inputs: Any,
        training: bool | None = None,
        observe: bool = True,
        step_only: bool = False,
    ) -> Any:
        """Rounds `inputs`.

        Args:
            observe: Whether these values count for the range.
            step_only: Returns the step of the grid, a scalar, instead.
        """
        tensors = [tf.cast(x, tf.float32) for x in keras.tree.flatten(inputs)]
        if step_only:
            return self._grid(tensors)[0]
        if self._calibrating:
            if observe:
                self._see(tensors)
            return inputs
        if training and observe and self.method == "minmax":
            self._follow(tensors)
        step, zero_point = self._grid(tensors)
        low, high = -zero_point, _LEVELS - zero_point
        if training:
            rounded = [round_to_grid(x, step, low, high) for x in tensors]
        else:  # the operation that the converter reads ranges from
            rounded = [
                tf.quantization.fake_quant_with_min_max_vars(x, low * step, high * step)
                for x in tensors
            ]
        return keras.tree.pack_sequence_as(inputs, rounded)

    def _grid(self, tensors: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Step and zero point; zero is a point of the grid."""
        low, high = tf.unstack(tf.convert_to_tensor(self.range.value))
        low = tf.minimum(low, 0.0)
        high = tf.maximum(high, low + _SMALLEST_RANGE)
        high = tf.maximum(high, 0.0)
        step = (high - low) / _LEVELS
        zero_point = tf.clip_by_value(tf.round(-low / step), 0.0, _LEVELS)
        if self.method == "lsq":
            features = sum(math.prod(size or 1 for size in x.shape[1:]) for x in tensors)
            step *= _log_with_scaled_gradient(self.log_scale, features, _LEVELS)
        return step, zero_point

    def _follow(self, tensors: list[tf.Tensor]) -> None:
        seen = tf.stack([
            tf.reduce_min([tf.reduce_min(x) for x in tensors]),
            tf.reduce_max([tf.reduce_max(x) for x in tensors]),
        ])  # fmt: skip
        share = (1.0 - _RANGE_MOMENTUM) * (1.0 - self.frozen.value)
        self.range.assign(self.range + share * (seen - self.range.value))

    def _see(self, tensors: list[tf.Tensor]) -> None:
        low = min(float(tf.reduce_min(x)) for x in tensors)
        high = max(float(tf.reduce_max(x)) for x in tensors)
        before = self.seen or (low, high)
        self.seen = min(low, before[0]), max(high, before[1])

    def calibration(self, on: bool) -> None:
        """Begins or ends watching: while it is on, values pass unchanged and are only seen."""
        self._calibrating = on
        if on:
            self.seen = None
        elif self.seen is not None:
            self.range.assign(self.seen)

    def compute_output_spec(self, inputs: Any, step_only: bool = False, **kwargs: Any) -> Any:
        if step_only:
            return keras.KerasTensor((), "float32")
        return keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, "float32"), inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "method": self.method, "limits": self.limits}


@keras.saving.register_keras_serializable(package="netopt")
class QuantizedLayer(keras.layers.Layer):
    """A dense layer or convolution with rounded weights, and the BatchNorm that folds into it.

    It holds both layers as they are: weights keep their paths, and stay float32 until they are
    rounded in the forward pass.

    Args:
        layer: One of `QUANTIZABLE`; without activation, or a fused one (relu, relu6). It is built
            when this one is made, so that its weights are named after it alone.
        batch_norm: Over the last axis; the layer has no activation then.
        weight_bits: 2 to 8; None leaves the weights unrounded. Fewer than 8 only for `FEW_BITS`.
        method: `minmax`: a channel's step follows its largest weight; `lsq`: steps are trained.
        int4: Whether a file stores weights of at most 4 bits as int4. LiteRT's kernels for those
            round results twice, which is not what is computed here; those for int8 do not.
    """

    def __init__(
        self,
        layer: keras.Layer,
        batch_norm: keras.layers.BatchNormalization | None = None,
        weight_bits: int | None = 8,
        method: Method = "minmax",
        int4: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **{"name": layer.name, **kwargs})
        self.layer = layer
        self.batch_norm = batch_norm
        self.weight_bits = weight_bits
        self.method = method
        self.int4 = int4

    def build(self, x_shape: Any, input_step_shape: Any = None) -> None:
        if not self.layer.built:
            self.layer.build(x_shape)
        if self.batch_norm is not None:
            if not self.batch_norm.built:
                self.batch_norm.build(self.layer.compute_output_shape(x_shape))
            self.frozen = self.add_weight(shape=(), initializer="zeros", trainable=False,
                                          name="frozen")  # fmt: skip
        if self._learns_steps:
            self.log_step = self.add_weight(shape=(math.prod(self._channels),),
                                            initializer="zeros", name="log_step")  # fmt: skip

    @property
    def kernel(self) -> keras.Variable:
        return self.layer.kernel

    @property
    def _learns_steps(self) -> bool:
        return self.method == "lsq" and self.weight_bits is not None

    @property
    def _axes(self) -> list[int]:
        """The axes of the kernel that count its output channels."""
        rank = len(self.kernel.shape)
        if isinstance(self.layer, _DEPTHWISE):
            return [rank - 2, rank - 1]
        return [rank - 2 if isinstance(self.layer, _TRANSPOSED) else rank - 1]

    @property
    def _channels(self) -> list[int]:
        """Shape in which a value for each output channel broadcasts over the kernel."""
        shape = self.kernel.shape
        return [size if axis in self._axes else 1 for axis, size in enumerate(shape)]

    @property
    def _bits(self) -> int:
        """Of the weights in the file, which has 8 for those that training leaves unrounded."""
        return self.weight_bits or 8

    @property
    def _levels(self) -> int:
        return 2 ** (self._bits - 1) - 1

    def init_steps(self) -> None:
        """Sets the steps to be trained to those of the least squared error."""
        if self._learns_steps:
            kernel = self.kernel.numpy()
            moved = np.moveaxis(kernel, self._axes, range(-len(self._axes), 0))
            flat = moved.reshape(-1, math.prod(self._channels))
            self.log_step.assign(np.log(least_error_step(flat, self._bits)))

    def call(self, x: Any, input_step: Any = None, training: bool | None = None) -> Any:
        """Computes the layer and its BatchNorm.

        Args:
            input_step: Of the grid that `x` is on, a scalar: the file's biases are whole multiples
                of it times the weights' step. Training does not need to see that.
        """
        x = tf.cast(x, tf.float32)
        kernel = tf.convert_to_tensor(self.kernel.value)
        bias = tf.convert_to_tensor(self.layer.bias.value) if self.layer.use_bias else None
        steps = self._steps(kernel)
        if self.weight_bits is not None:
            kernel = round_to_grid(kernel, steps, -self._levels, self._levels)
        if training:
            outputs = self._multiply(x, kernel, bias)
            return (
                outputs if self.batch_norm is None else self._normalized(outputs, self.batch_norm)
            )
        if self.batch_norm is not None:
            norm = self.batch_norm
            factor, offset = _affine(norm, norm.moving_mean.value, norm.moving_variance.value)
            kernel *= tf.reshape(factor, self._channels)
            steps *= tf.reshape(tf.abs(factor), self._channels)
            bias = offset if bias is None else bias * factor + offset
        if bias is not None and input_step is not None:
            unit = input_step * tf.reshape(steps, [-1])
            bias = unit * tf.round(bias / unit)
        if self._bits == 8:
            # The converter finds the same steps by itself: each channel's largest is 127 of them.
            return self._multiply(x, kernel, bias)
        return self._multiply_few_bits(x, kernel, steps, bias)

    def _steps(self, kernel: tf.Tensor) -> tf.Tensor:
        """The step of each channel, shaped `_channels`.

        A trained one is at most what `minmax` gives, so that the largest weight of a channel always
        is the largest integer and no level is wasted.
        """
        others = [axis for axis in range(len(kernel.shape)) if axis not in self._axes]
        largest = tf.reshape(tf.reduce_max(tf.abs(kernel), others), [-1])
        steps = tf.stop_gradient(_floored(largest) / self._levels)
        if self._learns_steps:
            count = math.prod(kernel.shape) // math.prod(self._channels)
            steps = tf.minimum(_log_with_scaled_gradient(self.log_step, count, self._levels), steps)
        return tf.reshape(steps, self._channels)

    def _multiply(self, x: Any, kernel: tf.Tensor, bias: tf.Tensor | None) -> Any:
        """The layer's own computation with other values for its weights."""
        values = [(self.kernel, kernel)]
        if self.layer.use_bias:
            values.append((self.layer.bias, bias))
        with keras.StatelessScope(state_mapping=values):
            outputs = tf.cast(self.layer(x), tf.float32)
        return outputs if self.layer.use_bias or bias is None else outputs + bias

    def _multiply_few_bits(
        self, x: Any, kernel: tf.Tensor, steps: tf.Tensor, bias: tf.Tensor | None
    ) -> Any:
        """The same, with the steps written down for the converter, which would take larger ones.

        It reads steps along the last axis alone, hence the reshaping of depthwise kernels; and it
        fails on those of a matrix, hence the 1x1 convolution for a dense layer.
        """
        bits = 4 if self.int4 and self._bits <= 4 else 8
        limit = (2 ** (bits - 1) - 1) * tf.reshape(steps, [-1])
        last = math.prod(self._channels)
        rows = tf.reshape(kernel, [*kernel.shape[:2], -1, last] if len(kernel.shape) == 4
                          else [1, 1, -1, last])  # fmt: skip
        rows = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            rows, -limit, limit, bits, narrow_range=True
        )
        if not isinstance(self.layer, keras.layers.Dense):
            return self._multiply(x, tf.reshape(rows, kernel.shape), bias)
        outputs = tf.nn.conv2d(tf.reshape(x, [-1, 1, 1, x.shape[-1]]), rows, 1, "VALID")
        if bias is not None:
            outputs += bias
        outputs = self.layer.activation(outputs)
        return tf.reshape(outputs, [-1, *x.shape[1:-1], last])

    def _normalized(self, x: tf.Tensor, norm: keras.layers.BatchNormalization) -> tf.Tensor:
        """BatchNorm in training: by the batch's statistics, or when frozen by the moving ones."""
        frozen = tf.convert_to_tensor(self.frozen.value)
        mean, variance = tf.nn.moments(x, list(range(len(x.shape) - 1)))
        moving_mean = tf.convert_to_tensor(norm.moving_mean.value)
        moving_variance = tf.convert_to_tensor(norm.moving_variance.value)
        share = (1.0 - norm.momentum) * (1.0 - frozen)
        norm.moving_mean.assign(moving_mean + share * (mean - moving_mean))
        norm.moving_variance.assign(moving_variance + share * (variance - moving_variance))
        factor, offset = _affine(
            norm,
            frozen * moving_mean + (1.0 - frozen) * mean,
            frozen * moving_variance + (1.0 - frozen) * variance,
        )
        return x * factor + offset

    def compute_output_shape(self, x_shape: Any, input_step_shape: Any = None) -> Any:
        return self.layer.compute_output_shape(x_shape)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "layer": serialize(self.layer),
            "batch_norm": None if self.batch_norm is None else serialize(self.batch_norm),
            "weight_bits": self.weight_bits,
            "method": self.method,
            "int4": self.int4,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> QuantizedLayer:
        layers = {
            key: keras.saving.deserialize_keras_object(config[key])
            for key in ("layer", "batch_norm")
            if config[key] is not None
        }
        return cls(**{**config, **layers})


def _affine(
    norm: keras.layers.BatchNormalization, mean: Any, variance: Any
) -> tuple[tf.Tensor, tf.Tensor]:
    """BatchNorm as x × factor + offset, each (channels,)."""
    factor = tf.math.rsqrt(tf.convert_to_tensor(variance) + norm.epsilon)
    if norm.scale:
        factor *= norm.gamma.value
    offset = -mean * factor
    return factor, offset + norm.beta.value if norm.center else offset


def quantizers(model: keras.Model) -> Iterator[FakeQuantize | QuantizedLayer]:
    """Yields the fake-quantizing layers of a model and of those nested in it."""
    for layer in model._flatten_layers():
        if isinstance(layer, FakeQuantize | QuantizedLayer):
            yield layer


def quantizer_state(model: keras.Model) -> list[keras.Variable]:
    """Returns the variables that only say how a model is rounded: ranges, steps, switches.

    They are no parameters of the network: an exported file has them as scales.
    """
    return [
        variable
        for layer in quantizers(model)
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables)
    ]


def calibrate(model: keras.Model, batches: Iterable[np.ndarray]) -> None:
    """Sets the ranges of activations to those seen on samples, without any rounding of them.

    Args:
        model: Fake-quantized; changed in place.
        batches: float32 (batch, *shape), normalized.
    """
    watching = [
        layer for layer in quantizers(model) if isinstance(layer, FakeQuantize) and not layer.limits
    ]
    for layer in watching:
        layer.calibration(True)
    try:
        for x in batches:
            model(x, training=False)
    finally:
        for layer in watching:
            layer.calibration(False)


def freeze(model: keras.Model) -> None:
    """Lets BatchNorm statistics and moving ranges stay as they are from now on."""
    for layer in quantizers(model):
        frozen = getattr(layer, "frozen", None)
        if frozen is not None:
            frozen.assign(1.0)
