import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from netopt_cli.contracts import ExportRecipe
from netopt_cli.export.litert import freeze, to_litert
from netopt_cli.measure.file_weights import (
    FileWeight,
    read_file_weights,
    real_values,
    sparsity,
)


def pruned_model(fraction: float) -> keras.Model:
    """With that fraction of the weights of both kernels at zero, the same in each channel."""
    random = np.random.default_rng(0)
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(5, 3, name="conv", use_bias=False)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dense(7, name="dense")(keras.layers.Flatten()(keras.layers.ReLU()(x)))
    model = keras.Model(inputs, x)
    for name in ("conv", "dense"):
        layer = model.get_layer(name)
        kernel = layer.kernel.numpy()
        rows = kernel.reshape(-1, kernel.shape[-1])
        rows[:] = np.sign(rows) * random.uniform(0.5, 1.0, rows.shape)
        rows[: round(fraction * len(rows))] = 0.0
        layer.kernel.assign(kernel)
    return model


def export(model: keras.Model, scheme) -> bytes:
    x = np.random.default_rng(1).standard_normal((8, 1, *model.input_shape[1:]))
    return to_litert(freeze(model), ExportRecipe(scheme, len(x)), iter(x.astype(np.float32)))


@pytest.mark.parametrize("scheme", ["float32", "int8"])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_sparsity_of_a_pruned_network(scheme, fraction):
    weights = read_file_weights(export(pruned_model(fraction), scheme))
    assert {weight.dtype for weight in weights} == {scheme}
    assert sorted(weight.size for weight in weights) == [9 * 2 * 5, 16 * 5 * 7]
    assert {len(weight.shape) for weight in weights} == {4, 2}
    assert sparsity(weights) == fraction


def test_a_shared_layer_is_counted_once():
    inputs = keras.Input((8,))
    shared = keras.layers.Dense(8)
    content = export(keras.Model(inputs, shared(keras.layers.ReLU()(shared(inputs)))), "float32")
    assert [weight.shape for weight in read_file_weights(content)] == [(8, 8)]


def test_a_file_without_weights_is_not_sparse():
    inputs = keras.Input((6, 6, 2))
    content = export(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)), "float32")
    assert read_file_weights(content) == []
    assert sparsity([]) == 0.0


def file_with(values: np.ndarray, shape, dtype: int, zero_point=None, scale=None) -> bytes:
    """A LiteRT file that is one constant tensor."""
    tensor = schema.TensorT(shape=list(shape), type=dtype, buffer=1, name="w")
    if zero_point is not None:
        tensor.quantization = schema.QuantizationParametersT(zeroPoint=zero_point, scale=scale)
    model = schema.ModelT(
        subgraphs=[schema.SubGraphT(tensors=[tensor])],
        buffers=[schema.BufferT(), schema.BufferT(data=values.reshape(-1).view(np.uint8))],
    )
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_int4_is_two_values_a_byte():
    # (0, -8), (7, 0), (0, padding): three zeros of five
    packed = np.array([0x80, 0x07, 0x30], np.uint8)
    (weight,) = read_file_weights(file_with(packed, (1, 5), schema.TensorType.INT4))
    assert weight == FileWeight("w", (1, 5), "int4", 5, 3)


def test_int16():
    values = np.array([[0, 300, -1]], np.int16)
    (weight,) = read_file_weights(file_with(values, (1, 3), schema.TensorType.INT16))
    assert weight == FileWeight("w", (1, 3), "int16", 3, 1)


@pytest.mark.parametrize(
    ("scheme", "dtype"),
    [
        ("weight_int4", "int4"),
        ("dynamic_int4", "int4"),
        ("float16", "float16"),
        ("dynamic", "int8"),
    ],
)
@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_sparsity_in_the_other_schemes(scheme, dtype, fraction):
    weights = read_file_weights(export(pruned_model(fraction), scheme))
    assert {weight.dtype for weight in weights} == {dtype}
    # Rounding to 4 bits may add zeros; these weights are at least half the largest.
    assert sparsity(weights) == fraction


def test_float16():
    values = np.array([[0, 1, -0.0], [2, 3, 4]], np.float16)
    (weight,) = read_file_weights(file_with(values, (2, 3), schema.TensorType.FLOAT16))
    assert weight == FileWeight("w", (2, 3), "float16", 6, 2)


@pytest.mark.parametrize(("zero_point", "zeros"), [([3], 2), ([3, 0], 4)])
def test_the_zero_point_stands_for_zero(zero_point, zeros):
    values = np.array([[3, 3, 1], [0, 0, 5]], np.int8)
    content = file_with(values, (2, 3), schema.TensorType.INT8, zero_point)
    assert read_file_weights(content)[0].zeros == zeros


def test_real_values_are_integers_times_their_scales():
    values = np.array([[3, 5, 1], [0, 0, 6]], np.int8)
    content = file_with(values, (2, 3), schema.TensorType.INT8, [3, 0], [0.5, 2.0])
    np.testing.assert_array_equal(real_values(content), [0, 1, -1, 0, 0, 12])


@pytest.mark.parametrize("scheme", ["float32", "int8", "weight_int4"])
def test_real_values_of_a_file_are_those_of_its_network(scheme):
    model = pruned_model(0.5)
    found = real_values(export(model, scheme))
    kernel = model.get_layer("dense").kernel.numpy()
    step = {"float32": 1e-6, "int8": 1 / 127, "weight_int4": 1 / 7}[scheme]
    sizes = [weight.size for weight in read_file_weights(export(model, scheme))]
    start = sum(sizes[: sizes.index(kernel.size)])
    close = np.sort(found[start : start + kernel.size])
    np.testing.assert_allclose(close, np.sort(kernel.ravel()), atol=step)


@pytest.mark.parametrize("content", [b"text", b"\xff\xff\xff\x7fTFL3", b""])
def test_real_values_of_no_file(content):
    with pytest.raises(ValueError, match="LiteRT file"):
        real_values(content)
