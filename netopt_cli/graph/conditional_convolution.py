"""Convolutions whose kernel is mixed for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.graph.rebuild import layers, rebuild

Mix = Literal["kernels", "outputs"]

_SHARED = (
    "filters",
    "kernel_size",
    "strides",
    "padding",
    "dilation_rate",
    "activation",
    "use_bias",
    "name",
    "dtype",
)
"""The keys of a Conv2D's configuration that its replacement has too."""


@keras.saving.register_keras_serializable(package="netopt")
class ConditionalConv2D(keras.layers.Layer):
    """A convolution with the kernel Σ r_i(x) W_i, r = sigmoid(router(mean of each channel))
    (Yang et al., 2019, CondConv).

    Channels last, no groups. Training and batches compute Σ r_i (W_i * x), which is the same.

    Args:
        experts: Number of kernels W_i.
        mix: How the exported file (batch 1) computes. `kernels` mixes them, then convolves once:
            few multiply-accumulates, but XNNPACK does not run them, and in float alone. `outputs`
            convolves with each and mixes what comes out: `experts` times the work, any scheme.
    """

    def __init__(
        self,
        *,
        filters: int,
        kernel_size: Sequence[int],
        experts: int,
        mix: Mix = "kernels",
        strides: Sequence[int] = (1, 1),
        padding: str = "valid",
        dilation_rate: Sequence[int] = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = tuple(kernel_size)
        self.experts = experts
        self.mix = mix
        self.strides = tuple(strides)
        self.padding = padding
        self.dilation_rate = tuple(dilation_rate)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias

    @property
    def netopt_integer_refusal(self) -> str | None:
        if self.mix == "outputs":
            return None
        return "convolves with a kernel that it computes: build it with mix=outputs"

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        shape = (*self.kernel_size, channels, self.filters)
        self.kernels = [
            self.add_weight(shape=shape, initializer="he_normal", name=f"expert_{i}")
            for i in range(1, self.experts + 1)
        ]
        self.router = self.add_weight(
            shape=(channels, self.experts), initializer="zeros", name="router"
        )
        self.offset = self.add_weight(shape=(self.experts,), initializer="zeros", name="offset")
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def start_from(self, kernel: np.ndarray, bias: np.ndarray | None, seed: int) -> None:
        """Makes the layer compute nearly what one convolution does: the routes are 1/2 at first."""
        random = np.random.default_rng(seed)
        noise = 0.1 * kernel.std()
        for expert in self.kernels:
            part = 2.0 / self.experts * kernel
            expert.assign(part + random.normal(scale=noise / self.experts, size=kernel.shape))
        if bias is not None:
            self.bias.assign(bias)

    def call(self, x: Any) -> Any:
        routes = tf.sigmoid(tf.reduce_mean(x, [1, 2]) @ self.router.value + self.offset.value)
        kernels = [tf.convert_to_tensor(kernel.value) for kernel in self.kernels]
        if x.shape[0] == 1 and self.mix == "kernels":
            stacked = tf.reshape(tf.stack(kernels), [self.experts, -1])
            y = self._convolve(x, tf.reshape(routes @ stacked, kernels[0].shape))
        else:
            shares = tf.reshape(routes, [-1, 1, 1, self.experts])
            y = tf.add_n(
                [shares[..., i : i + 1] * self._convolve(x, k) for i, k in enumerate(kernels)]
            )
        return self.activation(y + self.bias.value if self.use_bias else y)

    def _convolve(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(
            x, tf.cast(kernel, x.dtype), self.strides, self.padding.upper(),
            dilations=self.dilation_rate,
        )  # fmt: skip

    def compute_output_shape(self, input_shape: Any) -> Any:
        whole = keras.layers.Conv2D(
            self.filters, self.kernel_size, self.strides, self.padding,
            dilation_rate=self.dilation_rate,
        )  # fmt: skip
        return whole.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "experts": self.experts,
            "mix": self.mix,
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }


def can_be_conditional(layer: keras.Layer) -> bool:
    return (
        type(layer) is keras.layers.Conv2D
        and layer.groups == 1
        and layer.data_format == "channels_last"
    )


def with_conditional_convolutions(
    model: keras.Model, chosen: Sequence[keras.layers.Conv2D], experts: int, mix: Mix, seed: int
) -> keras.Model:
    """Puts a `ConditionalConv2D` of the same name in the place of convolutions; it starts as they
    are."""
    names = {layer.name for layer in chosen}

    def clone(layer: keras.Layer) -> keras.Layer | None:
        if layer.name not in names or not can_be_conditional(layer):
            return None
        config = layer.get_config()
        shared = {key: config[key] for key in _SHARED}
        return ConditionalConv2D(experts=experts, mix=mix, **shared)

    rebuilt, _ = rebuild(model, clone=clone)
    originals = {layer.name: layer for layer in chosen}
    for index, layer in enumerate(layers(rebuilt)):
        if isinstance(layer, ConditionalConv2D) and layer.name in originals:
            kernel, *bias = originals[layer.name].get_weights()
            layer.start_from(kernel, bias[0] if bias else None, seed + index)
    return rebuilt
