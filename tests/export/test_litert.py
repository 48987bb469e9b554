from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from netopt_cli.contracts import ExportRecipe, Scheme, Timing
from netopt_cli.errors import ConfigError, RunError
from netopt_cli.export.litert import freeze, to_litert
from netopt_cli.export.packed import pack, unpack
from netopt_cli.export.strip import strip
from netopt_cli.graph.quantizers import quantized_weights
from netopt_cli.graph.schemes import ARITHMETIC, weight_bits
from netopt_cli.measure.file_weights import read_file_weights
from netopt_cli.measure.runtime import LitertRunner

SHAPE = (8, 8, 2)
X = np.random.default_rng(0).standard_normal((16, *SHAPE)).astype(np.float32)


def small_net() -> keras.Model:
    layers = keras.layers
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(8, 3, padding="same", groups=2)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Dropout(0.5)(x)))


def calibration():
    return iter(X[:, np.newaxis])


class Apply(keras.layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)

    def compute_output_shape(self, shape):
        return shape


def net_with(function) -> keras.Model:
    inputs = keras.Input((4, 4))
    return keras.Model(inputs, keras.layers.Dense(3)(Apply(function)(inputs)))


def test_float32_file_computes_what_the_model_computes():
    model = small_net()
    runner = LitertRunner(to_litert(freeze(model), ExportRecipe()), Timing())
    expected = model(X, training=False).numpy()
    np.testing.assert_allclose(next(runner.logits([X])), expected, atol=1e-5)


def test_int8_file_is_integer_from_input_to_output_and_close():
    model = small_net()
    content = to_litert(freeze(model), ExportRecipe("int8", len(X)), calibration())
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    assert interpreter.get_input_details()[0]["dtype"] == np.int8
    assert interpreter.get_output_details()[0]["dtype"] == np.int8
    assert not any(t["dtype"] == np.float32 for t in interpreter.get_tensor_details())
    expected = model(X, training=False).numpy()
    actual = next(LitertRunner(content, Timing()).logits([X]))
    assert np.abs(actual - expected).max() < 0.1 * np.ptp(expected)


def test_trained_ranges_give_integers_without_calibration():
    def faked(low, high):
        return Apply(lambda x: tf.quantization.fake_quant_with_min_max_vars(x, low, high))

    class FakeQuantizedConv(keras.layers.Conv2D):
        def call(self, x):
            limit = tf.reduce_max(tf.abs(self.kernel), axis=[0, 1, 2])
            kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(
                self.kernel, -limit, limit, narrow_range=True
            )
            return tf.nn.conv2d(x, kernel, 1, "VALID") + self.bias

    inputs = keras.Input(SHAPE)
    outputs = faked(-6.0, 6.0)(FakeQuantizedConv(3, 8)(faked(-2.0, 2.0)(inputs)))
    model = keras.Model(inputs, keras.layers.Reshape((3,))(outputs))
    content = to_litert(freeze(model), ExportRecipe("int8", trained_ranges=True))
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    assert not any(t["dtype"] == np.float32 for t in interpreter.get_tensor_details())
    (details,) = interpreter.get_input_details()
    assert details["quantization"][0] == pytest.approx(4.0 / 255)
    actual = next(LitertRunner(content, Timing()).logits([X]))
    one_step = 12.0 / 255
    np.testing.assert_allclose(actual, model(X), atol=1.01 * one_step)


def test_export_is_reproducible():
    graph = freeze(small_net())
    recipe = ExportRecipe("int8", len(X))
    assert to_litert(graph, recipe, calibration()) == to_litert(graph, recipe, calibration())


def test_batch_is_one_and_weights_are_constants():
    graph = freeze(small_net())
    assert graph.frozen.inputs[0].shape == (1, *SHAPE)
    assert graph.traced.outputs[0].shape == (1, 3)
    assert not any(op.type == "ReadVariableOp" for op in graph.frozen.graph.get_operations())


def test_a_model_built_under_a_mirrored_strategy_exports():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = small_net()
    runner = LitertRunner(to_litert(freeze(model), ExportRecipe()), Timing())
    np.testing.assert_allclose(next(runner.logits([X])), model(X).numpy(), atol=1e-5)


@pytest.mark.parametrize("recipe", [ExportRecipe(), ExportRecipe("int8", 4)])
@pytest.mark.parametrize(
    ("function", "name"),
    [(tf.math.erf, "Erf"), (tf.math.erfinv, "Erfinv"), (tf.linalg.inv, "MatrixInverse")],
)
def test_an_operation_without_builtin_kernel_is_named(function, name, recipe):
    samples = iter(np.ones((4, 1, 4, 4), np.float32))
    with pytest.raises(RunError, match=f"no built-in kernel for {name}\\. Replace the layer"):
        to_litert(freeze(net_with(function)), recipe, samples)


def test_int8_refuses_a_loop():
    inputs = keras.Input((4, 2))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.LSTM(3)(inputs)))
    samples = iter(np.ones((4, 1, 4, 2), np.float32))
    with pytest.raises(RunError, match=r"While .*lstm.* is control flow.*unroll=True"):
        to_litert(freeze(model), ExportRecipe("int8", 4), samples)


@pytest.mark.parametrize("samples", [None, iter(())])
@pytest.mark.parametrize("scheme", ["int8", "int8x4", "int16x8"])
def test_integer_activations_need_calibration(scheme, samples):
    message = f"calibration_samples must be at least 1 to export {scheme}"
    with pytest.raises(ConfigError, match=message):
        to_litert(freeze(small_net()), ExportRecipe(scheme), samples)


SCHEMES = [scheme for scheme in get_args(Scheme) if scheme != "float32"]


def outside_of(content: bytes) -> set[type]:
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    tensors = (*interpreter.get_input_details(), *interpreter.get_output_details())
    return {tensor["dtype"] for tensor in tensors}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_computes_what_the_rounded_network_does(scheme):
    model = small_net()
    content = to_litert(freeze(model), ExportRecipe(scheme, len(X)), calibration())
    integer = {"int8": np.int8, "int8x4": np.int8, "int16x8": np.int16}
    assert outside_of(content) == {integer.get(scheme, np.float32)}
    with quantized_weights(model, weight_bits(model, scheme)):
        expected = model(X, training=False).numpy()
    part = {"float": 0.001, "dynamic": 0.05, "integer": 0.1}[ARITHMETIC[scheme]]
    for device in ("cpu", "cpu_reference"):
        actual = next(LitertRunner(content, Timing(device=device)).logits([X]))
        assert np.abs(actual - expected).max() < part * np.ptp(expected)
    stripped = strip(content)
    assert unpack(pack(stripped)) == stripped
    again = next(LitertRunner(stripped, Timing(device="cpu_reference")).logits([X]))
    np.testing.assert_array_equal(again, actual)


@pytest.mark.parametrize("scheme", ["int8", "dynamic", "weight_int8"])
def test_each_kernel_can_have_its_own_bits(scheme):
    inputs = keras.Input((8,))
    x = inputs
    for name in ("four", "eight", "sixteen", "float"):
        x = keras.layers.Dense(8, activation="relu", name=name)(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))
    bits = {"four/kernel": 4, "sixteen/kernel": 16, "float/kernel": 32, "logits/kernel": 32}
    samples = X.reshape(-1, 1, 8)
    recipe = ExportRecipe(scheme, len(samples), weight_bits=bits)
    content = to_litert(freeze(model), recipe, iter(samples))
    dtypes = {w.dtype for w in read_file_weights(content) if w.shape == (8, 8)}
    assert dtypes == {"int4", "int8", "float16", "float32"}
    actual = next(LitertRunner(content, Timing()).logits([samples[:, 0]]))
    with quantized_weights(model, weight_bits(model, scheme, bits)):
        expected = model(samples[:, 0]).numpy()
    part = {"float": 0.001, "dynamic": 0.05, "integer": 0.1}[ARITHMETIC[scheme]]
    assert np.abs(actual - expected).max() < part * np.ptp(expected)


@pytest.mark.parametrize("calibration_by", ["percentile", "mse"])
def test_int8_with_chosen_ranges_is_integer_throughout(calibration_by):
    model = small_net()
    recipe = ExportRecipe("int8", len(X), calibration=calibration_by)
    content = to_litert(freeze(model), recipe, calibration())
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    assert not any(t["dtype"] == np.float32 for t in interpreter.get_tensor_details())
    expected = model(X, training=False).numpy()
    actual = next(LitertRunner(content, Timing()).logits([X]))
    assert np.abs(actual - expected).max() < 0.1 * np.ptp(expected)


class Table(keras.layers.Layer):
    """A weight of rank 2 that multiplies each element."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=shape[1:], name="kernel")

    def call(self, x):
        return x * self.kernel


def test_a_kernel_that_the_file_has_not_is_named():
    inputs = keras.Input((4, 4))
    x = keras.layers.Flatten()(Table(name="table")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    with pytest.raises(RunError, match="4 bits for table/kernel: conversion has made another"):
        to_litert(freeze(model), ExportRecipe("weight_int8", weight_bits={"table/kernel": 4}))


@pytest.mark.parametrize("scheme", ["weight_int4", "dynamic_int4", "int8x4"])
def test_batch_norm_does_not_decide_how_ties_are_rounded(scheme):
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(16, 3, use_bias=False, name="conv")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm")(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    # Half of the weights are halfway between two of the 15 integers.
    random = np.random.default_rng(0)
    kernel = model.get_layer("conv").kernel
    values = random.choice(np.float32([1, 0.5, -0.5, -1 / 14]), kernel.shape)
    values[0, 0, 0] = 1.0
    kernel.assign(values)
    model.get_layer("norm").gamma.assign(random.uniform(0.3, 2, 16))
    model.get_layer("norm").moving_variance.assign(random.uniform(0.3, 2, 16))
    content = to_litert(freeze(model), ExportRecipe(scheme, len(X)), calibration())
    actual = next(LitertRunner(content, Timing()).logits([X]))
    with quantized_weights(model, weight_bits(model, scheme)):
        expected = model(X, training=False).numpy()
    part = {"float": 1e-4, "dynamic": 0.02, "integer": 0.05}[ARITHMETIC[scheme]]
    assert np.abs(actual - expected).max() < part * np.ptp(expected)


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
def test_gates_that_nothing_reads_are_no_obstacle(cell):
    """Of the first step, which begins with a state of zeros."""
    inputs = keras.Input((4, 2))
    x = getattr(keras.layers, cell)(3, unroll=True)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    samples = np.random.default_rng(0).normal(size=(8, 1, 4, 2)).astype(np.float32)
    content = to_litert(freeze(model), ExportRecipe("int8x4", 8), iter(samples))
    said = next(LitertRunner(content, Timing()).logits([samples[:, 0]]))
    np.testing.assert_allclose(said, model(samples[:, 0]), atol=0.3)


def test_what_litert_cannot_run_is_said_at_export(monkeypatch):
    def refuse(**kwargs):
        raise RuntimeError("failed to prepare")

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    samples = iter(np.ones((4, 1, 4), np.float32))
    monkeypatch.setattr("netopt_cli.export.quantized.Interpreter", refuse)
    with pytest.raises(RunError, match=r"LiteRT cannot run this network so: .*scheme=dynamic"):
        to_litert(freeze(model), ExportRecipe("int8x4", 4), samples)
