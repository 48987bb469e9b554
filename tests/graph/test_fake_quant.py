"""Fake-quantized networks: what they compute, keep and become as files."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt_cli.contracts import ExportRecipe, Timing
from netopt_cli.errors import InputError
from netopt_cli.export.litert import freeze as trace
from netopt_cli.export.litert import to_litert
from netopt_cli.graph.fake_quant import calibrate, freeze, quantizer_state, quantizers
from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.quant_activation import FakeQuantize
from netopt_cli.graph.quant_grid import least_error_step, round_to_grid
from netopt_cli.graph.quant_rewrite import fake_quantized
from netopt_cli.measure.file_weights import read_file_weights
from netopt_cli.measure.macs import count_macs
from netopt_cli.measure.runtime import LitertRunner

layers = keras.layers
X = np.random.default_rng(0).uniform(-1, 1, (200, 8, 8, 3)).astype(np.float32)


def plain() -> keras.Model:
    """Fused activations, pooling, a dense layer with a range of its own before its activation."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(8, 2, name="linear")(x)
    x = layers.AveragePooling2D(2, padding="same")(layers.ReLU()(x))
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    x = layers.Dense(12, activation="tanh", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(4, name="logits")(x))


def residual() -> keras.Model:
    """BatchNorm, sums with and without relu, a nested model, a gate."""
    inner_in = keras.Input((8, 8, 8))
    y = layers.BatchNormalization(name="inner_bn")(
        layers.Conv2D(8, 3, padding="same", use_bias=False, name="inner")(inner_in)
    )
    inner = keras.Model(inner_in, layers.Activation("relu")(layers.Add()([inner_in, y])))
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    x = layers.Activation("relu")(layers.BatchNormalization(name="stem_bn")(x))
    x = inner(x)
    gate = layers.Dense(8, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 8))(gate)])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="swish")(x))
    return keras.Model(inputs, layers.Dense(4, name="logits")(x))


def depthwise() -> keras.Model:
    """Depthwise convolutions with relu6, branches that are concatenated."""
    inputs = keras.Input((8, 8, 3))
    x = layers.ZeroPadding2D(1)(inputs)
    x = layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, use_bias=False, name="dw")(x)
    x = layers.ReLU(6)(layers.BatchNormalization(name="dw_bn")(x))
    left = layers.Conv2D(6, 1, activation="relu6", name="left")(x)
    x = layers.Concatenate()([left, layers.MaxPooling2D(2, 1, padding="same")(x), left])
    x = layers.Conv2DTranspose(5, 2, strides=2, name="up")(x)
    x = layers.GlobalAveragePooling2D()(layers.LeakyReLU(0.1)(x))
    return keras.Model(inputs, layers.Dense(4, name="logits")(x))


def lived_in(model: keras.Model) -> keras.Model:
    """Gives it weights and statistics as of a trained one: nothing is zero or one any more."""
    random = np.random.default_rng(1)
    for variable in model.weights:
        name = variable.name
        if name in {"gamma", "moving_variance"}:
            variable.assign(random.uniform(0.4, 2.0, variable.shape))
        elif name in {"beta", "bias", "moving_mean"}:
            variable.assign(random.normal(0, 0.3, variable.shape))
    return model


def quantized(model: keras.Model, **options) -> keras.Model:
    rewritten, _ = fake_quantized(model, **options)
    calibrate(rewritten, [X])
    return rewritten


def file_of(model: keras.Model) -> bytes:
    return to_litert(trace(model), ExportRecipe("int8", trained_ranges=True))


def outputs(model: keras.Model) -> np.ndarray:
    return model(X, training=False).numpy()


@pytest.mark.parametrize(
    ("net", "method", "bits"),
    [
        (plain, "minmax", 8),
        (residual, "lsq", 4),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((depthwise, "minmax", 8), (depthwise, "lsq", 4), (residual, "minmax", 8))
        ),
    ],
)
def test_the_file_computes_what_the_network_computes(net, method: str, bits: int) -> None:
    original = lived_in(net())
    model = quantized(original, method=method, bits_of=lambda path: bits)
    content = file_of(model)
    expected, actual = outputs(model), next(LitertRunner(content, Timing()).logits([X]))
    assert np.mean(expected.argmax(-1) == actual.argmax(-1)) >= 0.995
    assert np.mean(np.abs(expected - actual) < 1e-5) > 0.7, "most logits are the same to the bit"
    assert {weight.dtype for weight in read_file_weights(content)} == {"int8"}
    macs = count_macs(trace(model).traced.graph).total
    assert macs == count_macs(trace(original).traced.graph).total


@pytest.mark.slow
def test_int4_halves_the_file_and_stays_close() -> None:
    model = quantized(lived_in(residual()), bits_of=lambda path: 4, int4=True)
    expected, content = outputs(model), file_of(model)
    actual = next(LitertRunner(content, Timing()).logits([X]))
    assert {weight.dtype for weight in read_file_weights(content)} == {"int4"}
    assert np.abs(expected - actual).max() < 0.05 * np.ptp(expected)


def test_few_bits_are_few_integers_in_the_file() -> None:
    content = file_of(quantized(plain(), bits_of=lambda path: 3))
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for details in interpreter.get_tensor_details():
        if len(details["quantization_parameters"]["scales"]) > 1 and details["dtype"] == np.int8:
            assert np.abs(interpreter.get_tensor(details["index"])).max() == 3


@pytest.mark.parametrize("net", [plain, residual, depthwise])
def test_the_rewritten_network_is_close_to_the_original(net) -> None:
    original = lived_in(net())
    expected = outputs(original)
    assert np.abs(outputs(quantized(original)) - expected).max() < 0.1 * np.ptp(expected)
    np.testing.assert_array_equal(outputs(original), expected)


def test_weights_keep_their_paths_and_values() -> None:
    original = lived_in(residual())
    model = quantized(original, method="lsq")
    before = {v.path: v.numpy() for v in original.weights}
    state = {id(v) for v in quantizer_state(model)}
    after = {v.path: v.numpy() for v in model.weights if id(v) not in state}
    assert set(after) == set(before)
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value)
    assert list(kernels(model)) == list(kernels(original))
    assert len(state) < len(model.weights)


@pytest.mark.parametrize("method", ["lsq", pytest.param("minmax", marks=pytest.mark.slow)])
def test_saved_and_loaded_it_is_the_same(method: str, tmp_path: Path) -> None:
    model = quantized(lived_in(residual()), method=method)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(outputs(loaded), outputs(model))
    assert [v.path for v in loaded.weights] == [v.path for v in model.weights]
    assert file_of(loaded) == file_of(model)


def test_batch_norm_follows_the_batches_until_it_is_frozen() -> None:
    original = lived_in(residual())
    model = quantized(original)
    weights = {v.path: v for v in model.weights}
    start = weights["stem_bn/moving_mean"].numpy()
    model(X, training=True)
    followed = weights["stem_bn/moving_mean"].numpy()
    assert np.abs(followed - start).max() > 1e-4
    freeze(model)
    ranges = [v.numpy() for v in quantizer_state(model)]
    in_training = model(2 * X, training=True).numpy()
    np.testing.assert_array_equal(weights["stem_bn/moving_mean"].numpy(), followed)
    for before, variable in zip(ranges, quantizer_state(model), strict=True):
        np.testing.assert_array_equal(before, variable.numpy())
    at_inference = model(2 * X, training=False).numpy()
    assert np.abs(in_training - at_inference).max() < 0.05 * np.ptp(at_inference)


def test_ranges_are_those_of_the_samples_and_the_input_keeps_its_own() -> None:
    model = quantized(plain())
    ranges = {q.name: q.range.numpy() for q in quantizers(model) if isinstance(q, FakeQuantize)}
    (name,) = (name for name in ranges if name.startswith(("input", "keras_tensor")))
    np.testing.assert_allclose(ranges[name], [X.min(), X.max()])
    assert any(np.allclose(each, [-1, 127 / 128]) for each in ranges.values())
    model(3 * X, training=True)
    moved = {q.name: q.range.numpy() for q in quantizers(model) if isinstance(q, FakeQuantize)}
    np.testing.assert_array_equal(moved[name], ranges[name])
    assert moved["conv_range"][1] > ranges["conv_range"][1]


def test_trained_steps_and_ranges_get_gradients() -> None:
    model = quantized(lived_in(plain()), method="lsq", bits_of=lambda path: 4)
    trained = [v for v in quantizer_state(model) if v.trainable]
    assert {v.name for v in trained} == {"log_step", "log_scale"}
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(X, training=True) ** 2)
    gradients = tape.gradient(loss, [v.value for v in trained])
    assert all(g is not None and np.isfinite(g.numpy()).all() for g in gradients)
    assert all(np.abs(g.numpy()).max() > 0 for g in gradients)


@given(
    st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=30),
    st.integers(2, 8),
    st.floats(0.0625, 2, width=32),
)
@settings(deadline=None, max_examples=50)
def test_rounding_keeps_zeros_and_stays_on_its_grid(values, bits: int, step: float) -> None:
    levels = 2 ** (bits - 1) - 1
    x = tf.constant(values, tf.float32)
    codes = round_to_grid(x, tf.constant(step), -levels, levels).numpy() / step
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-4)
    assert np.abs(codes).max() <= levels + 1e-4
    assert not codes[np.asarray(values) == 0].any()


def test_least_error_steps_beat_those_of_the_largest_weight() -> None:
    kernel = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)

    def error(steps: np.ndarray) -> np.ndarray:
        return np.square(kernel - steps * np.clip(np.rint(kernel / steps), -7, 7)).sum(axis=0)

    assert (error(least_error_step(kernel, 4)) < 0.8 * error(np.abs(kernel).max(axis=0) / 7)).all()


def test_a_dead_channel_keeps_its_bias() -> None:
    original = lived_in(plain())
    weights = {v.path: v for v in original.weights}
    kernel, bias = weights["conv/kernel"].numpy(), weights["conv/bias"].numpy()
    kernel[..., 2], bias[2] = 0, 3.0
    weights["conv/kernel"].assign(kernel)
    weights["conv/bias"].assign(bias)
    for bits in (8, 4):
        model = quantized(original, bits_of=lambda path, bits=bits: bits)
        actual = next(LitertRunner(file_of(model), Timing()).logits([X]))
        assert np.abs(outputs(model) - actual).max() < 0.05 * np.ptp(actual)


def test_what_cannot_be_rounded_is_said() -> None:
    inputs = keras.Input((8, 8, 4))
    x = layers.LayerNormalization(name="norm")(inputs)
    x = layers.Conv2D(8, 3, groups=2, name="grouped")(x)
    x = layers.Flatten()(x)
    model = keras.Model(inputs, layers.Dense(3, name="logits")(x))
    _, lines = fake_quantized(model, bits_of=lambda path: None if "logits" in path else 4)
    assert any(line.startswith("norm (LayerNormalization): computed in float32") for line in lines)
    assert any(line.startswith("grouped/kernel: 8 bits instead of 4") for line in lines)
    assert any(line.startswith("logits/kernel: excluded") for line in lines)


def test_loops_are_refused() -> None:
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, layers.Dense(3)(layers.LSTM(4, name="memory")(inputs)))
    with pytest.raises(InputError, match=r"'memory' .* unroll=True"):
        fake_quantized(model)


def test_operations_that_move_values_have_no_range_of_their_own() -> None:
    inputs = keras.Input((6,))
    x = keras.layers.Dense(8, name="dense")(inputs)
    moved = keras.ops.transpose(keras.ops.reshape(x, (-1, 2, 4)), (0, 2, 1))[:, :3]
    outputs = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(moved))
    rewritten, lines = fake_quantized(keras.Model(inputs, outputs))
    ranges = [layer.name for layer in rewritten.layers if layer.name.endswith("_range")]
    assert len(ranges) == 3 and "dense_range" in ranges and "logits_range" in ranges
    assert lines == []
