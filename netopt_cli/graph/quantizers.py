"""The arithmetic of quantized weights, and what each weight of a network answers to fewer bits.

It is the arithmetic of the exported file: symmetric integers of a narrow range, one scale for each
output channel (LiteRT 8-bit quantization specification; 4 bits likewise).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import keras
import numpy as np

from netopt_cli.graph.exits import final_logits
from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.rebuild import layers

_TINY = np.float32(1e-9)
_BATCH = 128


def largest_integer(bits: int) -> int:
    """The integers of so many bits are -largest … largest: 127 for 8, 7 for 4."""
    return 2 ** (bits - 1) - 1


def channel_axes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Returns path -> the axes of a kernel along which the exported file has a scale of its own.

    The output channels of convolutions and of dense layers, every channel of a depthwise
    convolution, the rows of an embedding. Paths are those of `graph.kernels.kernels`.
    """
    owner = owners(model)
    return {path: _channel_axes(owner[path], variable) for path, variable in kernels(model).items()}


def owners(model: keras.Model) -> dict[str, keras.Layer | None]:
    """Returns path -> the layer that a kernel belongs to; None when a model holds it itself."""
    by_variable = {
        id(variable): layer
        for layer in _all_layers(model)
        for variable in layer._trainable_variables
    }
    return {path: by_variable.get(id(variable)) for path, variable in kernels(model).items()}


def embeddings(model: keras.Model) -> list[str]:
    """Returns the paths of the kernels whose rows are looked up."""
    owner = owners(model)
    return [path for path in owner if isinstance(owner[path], keras.layers.Embedding)]


def quantize_symmetric(
    kernel: np.ndarray, bits: int, axes: Sequence[int] | None = None
) -> np.ndarray:
    """Rounds a kernel to what `bits` bits can hold and returns it dequantized, float32.

    value = scale × integer, where scale = largest |value| / `largest_integer(bits)`: the error is
    at most half a scale and zero stays zero. 16 bits are half-precision floats, 32 leave the kernel
    as it is.

    Args:
        axes: Channels with a scale of their own; None for one scale.

    Raises:
        ValueError: `bits` is not 2 to 8, 16 or 32.
    """
    if bits == 32:
        return kernel.astype(np.float32)
    if bits == 16:
        return kernel.astype(np.float16).astype(np.float32)
    scale = symmetric_scale(kernel, bits, axes)
    return np.rint(kernel / scale).astype(np.float32) * scale


def symmetric_scale(kernel: np.ndarray, bits: int, axes: Sequence[int] | None = None) -> np.ndarray:
    """Returns the scale of each channel, float32, in a shape that broadcasts over the kernel."""
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be 2 to 8, 16 or 32. Received: bits={bits}")
    channels = {axis % kernel.ndim for axis in axes or ()}
    others = tuple(axis for axis in range(kernel.ndim) if axis not in channels)
    largest = np.abs(kernel).max(axis=others, keepdims=True).astype(np.float32)
    return np.maximum(largest, _TINY) / np.float32(largest_integer(bits))


@contextmanager
def quantized_weights(model: keras.Model, bits: Mapping[str, int]) -> Iterator[None]:
    """Within it the kernels at the given paths hold what so many bits can hold of them."""
    found, axes = kernels(model), channel_axes(model)
    before = {path: found[path].numpy() for path in bits}
    try:
        for path, width in bits.items():
            found[path].assign(quantize_symmetric(before[path], width, axes[path]))
        yield
    finally:
        for path, values in before.items():
            found[path].assign(values)


class LogitsDistance:
    """How far a changed network is from itself before: the mean KL divergence of its predictions.

    A finer measure than accuracy, which moves in steps of one sample.

    Args:
        model: As it is now; its predictions are what later ones are compared with.
        x: (n, *shape), normalized.
        are_logits: Whether the outputs are those of classes. Others are compared by the mean of
            their squared differences.
    """

    def __init__(self, model: keras.Model, x: np.ndarray, *, are_logits: bool = True) -> None:
        self._x = x
        self._are_logits = are_logits
        self._before = self._predict(model)

    def __call__(self, model: keras.Model) -> float:
        now = self._predict(model)
        if not self._are_logits:
            return float(np.mean(np.square(self._before - now)))
        divergence = np.sum(np.exp(self._before) * (self._before - now), axis=-1)
        return float(np.mean(divergence))

    def _predict(self, model: keras.Model) -> np.ndarray:
        """Log-probabilities, or outputs as they are; float64 (n, …)."""
        parts = np.array_split(self._x, max(1, len(self._x) // _BATCH))
        outputs = [final_logits(model(part, training=False)) for part in parts]
        if self._are_logits:
            outputs = [keras.ops.log_softmax(output) for output in outputs]
        return keras.ops.convert_to_numpy(keras.ops.concatenate(outputs)).astype(np.float64)


_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose)


def _all_layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Yields the layers with those inside of wrappers, attention and recurrent layers."""
    for layer in layers(model):
        if isinstance(layer, keras.Layer):
            yield from layer._flatten_layers()


def _channel_axes(owner: keras.Layer | None, variable: keras.Variable) -> tuple[int, ...]:
    if variable.name == "depthwise_kernel" or isinstance(owner, _DEPTHWISE):
        return (-2, -1)
    if isinstance(owner, _TRANSPOSED):
        return (-2,)
    if isinstance(owner, keras.layers.Embedding):
        return (0,)
    if isinstance(owner, keras.layers.EinsumDense):
        inputs, kernel, outputs = owner.equation.replace("->", ",").split(",")
        return tuple(a for a, n in enumerate(kernel) if n in outputs and n not in inputs)
    return (-1,)
