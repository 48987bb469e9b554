import dataclasses

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

from netopt_cli.contracts import ExportRecipe
from netopt_cli.errors import RunError
from netopt_cli.export.litert import freeze
from netopt_cli.export.onnx import to_onnx
from netopt_cli.measure.onnx_runtime import OnnxRunner

SHAPE = (8, 8, 2)
X = np.random.default_rng(0).standard_normal((32, *SHAPE)).astype(np.float32)
INT8 = ExportRecipe("int8", len(X))


def small_net() -> keras.Model:
    layers = keras.layers
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(8, 3, padding="same", groups=2)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Dropout(0.5)(x)))


class Apply(keras.layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)

    def compute_output_shape(self, shape):
        return shape


def fake_quantized_net() -> keras.Model:
    fake_quant = tf.quantization.fake_quant_with_min_max_vars
    inputs = keras.Input(SHAPE)
    x = Apply(lambda x: fake_quant(x, -3.0, 3.0))(inputs)
    x = keras.layers.Dense(3)(keras.layers.Flatten()(x))
    return keras.Model(inputs, Apply(lambda x: fake_quant(x, -4.0, 4.0))(x))


def calibration():
    return iter(X[:, np.newaxis])


def logits_of(content, tmp_path, workers=1) -> np.ndarray:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    return np.concatenate(list(OnnxRunner(file, workers).logits([X[:20], X[20:]])))


def weights_of(content) -> list[onnx.TensorProto]:
    graph = onnx.load_from_string(content).graph
    return [tensor for tensor in graph.initializer if len(tensor.dims) >= 2]


def test_float32_file_computes_what_the_model_computes(tmp_path):
    model = small_net()
    file = to_onnx(freeze(model), ExportRecipe())
    assert file.scheme == "float32"
    expected = model(X, training=False).numpy()
    np.testing.assert_allclose(logits_of(file.content, tmp_path), expected, atol=1e-5)
    np.testing.assert_allclose(logits_of(file.content, tmp_path, workers=3), expected, atol=1e-5)


def test_int8_file_has_int8_weights_and_is_close(tmp_path):
    model = small_net()
    file = to_onnx(freeze(model), INT8, calibration())
    assert file.scheme == "int8"
    assert {tensor.data_type for tensor in weights_of(file.content)} == {onnx.TensorProto.INT8}
    assert len(weights_of(file.content)) == 3
    expected = model(X, training=False).numpy()
    # Eight-bit weights saturate on processors without VNNI, which is half the spread here.
    assert np.abs(logits_of(file.content, tmp_path) - expected).max() < 0.1 * np.ptp(expected)


def test_each_channel_has_a_scale():
    content = to_onnx(freeze(small_net()), INT8, calibration()).content
    model = onnx.load_from_string(content)
    sizes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    scales = [sizes[name] for name in sizes if name.endswith("_scale")]
    assert [8] in scales and [3] in scales


def test_zeros_of_the_weights_stay_zeros():
    model = small_net()
    head = model.layers[-1]
    kernel, bias = head.get_weights()
    head.set_weights([np.where(np.arange(kernel.size).reshape(kernel.shape) % 2, kernel, 0), bias])
    weights = weights_of(to_onnx(freeze(model), INT8, calibration()).content)
    (found,) = (onnx.numpy_helper.to_array(w) for w in weights if sorted(w.dims) == [3, 8])
    assert np.count_nonzero(found == 0) >= kernel.size // 2


def test_trained_ranges_stay_in_a_float32_file(tmp_path):
    model = fake_quantized_net()
    file = to_onnx(freeze(model), dataclasses.replace(INT8, trained_ranges=True))
    assert file.scheme == "float32"
    assert {tensor.data_type for tensor in weights_of(file.content)} == {onnx.TensorProto.FLOAT}
    step = 8.0 / 255
    difference = np.abs(logits_of(file.content, tmp_path) - model(X, training=False).numpy())
    assert difference.max() <= 1.01 * step
    assert np.mean(difference > step / 2) < 0.05


@pytest.mark.parametrize("recipe", [ExportRecipe(), INT8], ids=["float32", "int8"])
def test_export_is_reproducible(recipe):
    graph = freeze(small_net())
    assert to_onnx(graph, recipe, calibration()) == to_onnx(graph, recipe, calibration())


def test_an_operation_without_counterpart_is_named():
    inputs = keras.Input((4, 4))
    model = keras.Model(inputs, Apply(tf.linalg.pinv)(inputs))
    with pytest.raises(RunError, match=r"Cannot export onnx: ONNX has no operation for .*Svd"):
        to_onnx(freeze(model), ExportRecipe())


def test_a_file_that_is_none_is_a_run_error(tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(b"not a model")
    with pytest.raises(RunError, match=r"ONNX Runtime cannot load .*model\.onnx"):
        OnnxRunner(file)
