import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.quantizers import (
    LogitsDistance,
    channel_axes,
    largest_integer,
    quantize_symmetric,
    quantized_weights,
    symmetric_scale,
)

X = np.random.default_rng(0).standard_normal((32, 6)).astype(np.float32)
a_kernel = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=4, max_side=5),
    elements=st.floats(-8, 8, width=32),
)
some_axes = st.sampled_from([None, (-1,), (0,), (-2, -1)])


@given(a_kernel, st.integers(2, 8), some_axes)
def test_rounding_is_symmetric_and_within_half_a_scale(kernel, bits, axes):
    scale = symmetric_scale(kernel, bits, axes)
    quantized = quantize_symmetric(kernel, bits, axes)
    assert (np.abs(quantized - kernel) <= 0.5001 * scale).all()
    assert (quantized[kernel == 0] == 0).all()
    np.testing.assert_array_equal(quantize_symmetric(-kernel, bits, axes), -quantized)
    integers = quantized / scale
    np.testing.assert_allclose(integers, np.rint(integers), atol=1e-3)
    assert np.abs(np.rint(integers)).max() <= largest_integer(bits)


@given(a_kernel, st.integers(2, 8), some_axes)
def test_a_second_rounding_changes_nothing(kernel, bits, axes):
    once = quantize_symmetric(kernel, bits, axes)
    np.testing.assert_allclose(quantize_symmetric(once, bits, axes), once, rtol=1e-5)


@given(arrays(np.float32, (4, 3), elements=st.floats(0.5, 1, width=32)), st.integers(2, 8))
def test_a_channel_does_not_see_the_range_of_another(kernel, bits):
    factors = np.float32([1, 8, 64])  # powers of 2: no rounding of their own
    wide = kernel * factors
    alone = quantize_symmetric(kernel, bits, (-1,))
    np.testing.assert_array_equal(quantize_symmetric(wide, bits, (-1,)), alone * factors)
    assert symmetric_scale(wide, bits).shape == (1, 1)
    assert symmetric_scale(wide, bits, (-1,)).shape == (1, 3)


def test_floating_point_widths():
    kernel = np.float32([[1.0, 1e-3, np.pi]])
    np.testing.assert_array_equal(quantize_symmetric(kernel, 32), kernel)
    np.testing.assert_array_equal(quantize_symmetric(kernel, 16), kernel.astype(np.float16))
    with pytest.raises(ValueError, match=r"bits must be 2 to 8, 16 or 32\. Received: bits=12"):
        quantize_symmetric(kernel, 12)


def test_channels_of_each_kind_of_layer():
    layers = keras.layers
    inputs = keras.Input((8, 8, 4), name="input")
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.SeparableConv2D(6, 3, name="separable")(x)
    x = layers.Conv2DTranspose(5, 3, name="transposed")(x)
    x = layers.Reshape((16, 5))(x)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    model = keras.Model(inputs, layers.LSTM(4, name="lstm")(x))
    assert channel_axes(model) == {
        "conv/kernel": (-1,),
        "depthwise/kernel": (-2, -1),
        "separable/depthwise_kernel": (-2, -1),
        "separable/pointwise_kernel": (-1,),
        "transposed/kernel": (-2,),
        "attention/query/kernel": (1, 2),
        "attention/key/kernel": (1, 2),
        "attention/value/kernel": (1, 2),
        "attention/attention_output/kernel": (2,),
        "lstm/lstm_cell/kernel": (-1,),
        "lstm/lstm_cell/recurrent_kernel": (-1,),
    }


def two_layers() -> keras.Model:
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(8, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(hidden))


def test_weights_are_quantized_within_and_whole_after():
    model = two_layers()
    before = {path: kernel.numpy() for path, kernel in kernels(model).items()}
    with pytest.raises(RuntimeError), quantized_weights(model, {"hidden/kernel": 2}):
        inside = {path: kernel.numpy() for path, kernel in kernels(model).items()}
        assert all(len(np.unique(np.abs(c))) <= 2 for c in inside["hidden/kernel"].T)
        np.testing.assert_array_equal(inside["logits/kernel"], before["logits/kernel"])
        raise RuntimeError
    for path, kernel in kernels(model).items():
        np.testing.assert_array_equal(kernel.numpy(), before[path])


def test_fewer_bits_take_the_predictions_further_away():
    model = two_layers()
    distance = LogitsDistance(model, X)
    assert distance(model) == 0
    for path in kernels(model):
        by_bits = []
        for bits in (2, 4, 8, 32):
            with quantized_weights(model, {path: bits}):
                by_bits.append(distance(model))
        assert by_bits == sorted(by_bits, reverse=True)
        assert by_bits[0] > 10 * by_bits[2] > by_bits[3] == 0
    assert distance(model) == 0
