"""A dense layer or convolution that computes with rounded weights what the int8 file computes.

The arithmetic is that of LiteRT's 8-bit specification: weights are symmetric integers of a narrow
range with a scale for each output channel (Jacob et al. 2018, arXiv:1712.05877).

BatchNorm is folded *exactly*: with one symmetric scale a channel, rounding commutes with a factor a
channel, so that BatchNorm of a convolution with rounded weights is the convolution with rounded
folded weights, by batch statistics as well as by moving ones. No correction factors and no second
convolution are needed (Krishnamoorthi 2018, arXiv:1806.08342, section 3.2.2).
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.graph.quant_grid import (
    Method,
    floored,
    learned_step,
    least_error_step,
    round_to_grid,
)

_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
FEW_BITS = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
"""Layers whose weights a file can hold in fewer than 8 bits."""
QUANTIZABLE = (*FEW_BITS, keras.layers.Conv1D, *_TRANSPOSED, keras.layers.DepthwiseConv1D)
"""Layers whose weights can be fake-quantized."""


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
        steps = tf.stop_gradient(floored(largest) / self._levels)
        if self._learns_steps:
            count = math.prod(kernel.shape) // math.prod(self._channels)
            steps = tf.minimum(learned_step(self.log_step, count, self._levels), steps)
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
