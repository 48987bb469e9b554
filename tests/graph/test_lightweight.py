import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from netopt_cli.arch import cnn, mlp, resnet
from netopt_cli.errors import InputError
from netopt_cli.export.litert import freeze
from netopt_cli.graph.lightweight import Lightening, choose_replacements, lighten
from netopt_cli.measure.macs import count_macs


def outputs(model: keras.Model) -> np.ndarray:
    shape = model.input_shape[1:]
    return model(np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")).numpy()


def total_macs(model: keras.Model) -> int:
    return count_macs(freeze(model).traced.graph).total


def one(shape: tuple[int, ...], layer: keras.Layer) -> keras.Model:
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    random = np.random.default_rng(1)
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
    return model


@settings(max_examples=15, deadline=None)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(2, 3)),
    strides=st.integers(1, 2),
    padding=st.sampled_from(["same", "valid"]),
    multiplier=st.integers(1, 2),
    bias=st.booleans(),
)
def test_a_kernel_of_its_form_is_kept_exactly(size, strides, padding, multiplier, bias):
    random = np.random.default_rng(0)
    layer = layers.Conv2D(
        16, size, strides=strides, padding=padding, use_bias=bias, activation="tanh", name="conv"
    )
    model = one((7, 8, 4), layer)
    depthwise = random.normal(size=(*size, 4, multiplier))
    pointwise = random.normal(size=(4, multiplier, 16))
    kernel = np.einsum("hwim,imo->hwio", depthwise, pointwise)
    layer.set_weights([kernel, *layer.get_weights()[1:]])
    lightening = Lightening(multiplier=multiplier)
    try:
        chosen, _ = choose_replacements(model, lightening, keep_first=False)
    except InputError as error:
        assert "MACs would not fall" in str(error)
        return
    result = lighten(model, chosen, lightening)
    np.testing.assert_allclose(outputs(result), outputs(model), atol=1e-4)
    assert (total_macs(model), total_macs(result)) == chosen[0].macs
    assert [x.name for x in result.layers[1:]] == ["conv_depthwise", "conv"]


def block_diagonal(groups: int, order: np.ndarray) -> keras.Model:
    """A convolution whose group g of outputs reads only group g of the inputs in that order."""
    layer = layers.Conv2D(12, 3, padding="same", activation="tanh", name="conv")
    model = one((6, 6, 8), layer)
    kernel, bias = layer.get_weights()
    mask = np.zeros((8, 12))
    for g in range(groups):
        reads = order[g * 8 // groups : (g + 1) * 8 // groups]
        mask[reads, g * 12 // groups : (g + 1) * 12 // groups] = 1
    layer.set_weights([kernel * mask, bias])
    return model


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("most", "groups"), [(2, 2), (3, 2), (4, 4)])
def test_a_block_diagonal_kernel_is_kept_exactly(shuffle, most, groups):
    order = np.array([c for g in range(groups) for c in range(8) if c % groups == g])
    model = block_diagonal(groups, order if shuffle else np.arange(8))
    lightening = Lightening("grouped", groups=most, shuffle=shuffle)
    chosen, left = choose_replacements(model, lightening, keep_first=False)
    result = lighten(model, chosen, lightening)
    assert left == [] and result.get_layer("conv").groups == groups
    np.testing.assert_allclose(outputs(result), outputs(model), atol=1e-5)
    assert total_macs(result) == total_macs(model) // groups == chosen[0].macs[1]


@pytest.mark.parametrize("convolution", ["separable", "grouped"])
def test_1d_convolutions(convolution):
    model = one((12, 8), layers.Conv1D(8, 3, strides=2, padding="same", name="conv"))
    lightening = Lightening(convolution, between="batch_norm_relu", shuffle=True)
    chosen, _ = choose_replacements(model, lightening, keep_first=False)
    result = lighten(model, chosen, lightening)
    assert result.output_shape == model.output_shape
    assert total_macs(result) == chosen[0].macs[1] < total_macs(model)


def test_a_start_from_the_kernel_is_nearer_than_a_new_one():
    model = resnet.build((16, 16, 3), 10)
    chosen, _ = choose_replacements(model, Lightening())
    result = lighten(model, chosen, Lightening())
    layer = model.get_layer("block_1_conv_1")
    made = np.einsum(
        "hwi,io->hwio",
        result.get_layer("block_1_conv_1_depthwise").kernel.numpy()[..., 0],
        result.get_layer("block_1_conv_1").kernel.numpy()[0, 0],
    )
    kernel = layer.kernel.numpy()
    kept = 1 - np.sum((kernel - made) ** 2) / np.sum(kernel**2)
    # Each of 16 slices of 9 × 16 keeps its strongest component: more than an even share.
    assert 1.5 / 9 < kept < 1
    assert "stem_conv_depthwise" not in [x.name for x in result.layers]
    assert total_macs(result) == total_macs(model) - sum(r.macs[0] - r.macs[1] for r in chosen)


def test_between_puts_a_norm_and_an_activation():
    model = cnn.build((8, 8, 1), 3)
    lightening = Lightening(between="batch_norm_relu")
    chosen, _ = choose_replacements(model, lightening, exclude=["conv_3"])
    names = [layer.name for layer in lighten(model, chosen, lightening).layers]
    start = names.index("conv_2_depthwise")
    assert names[start + 1 : start + 4] == [
        "conv_2_depthwise_bn", "conv_2_depthwise_relu", "conv_2",
    ]  # fmt: skip
    assert "conv_3_depthwise" not in names


def mixed() -> keras.Model:
    inputs = keras.Input((9, 9, 8))
    shared = layers.Conv2D(8, 3, padding="same", name="shared")
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    x = shared(shared(x))
    x = layers.Conv2D(8, 3, strides=(1, 2), padding="same", name="uneven")(x)
    x = layers.Conv2D(8, 1, name="pointwise")(x)
    x = layers.Conv2DTranspose(8, 3, name="transposed")(x)
    x = layers.Conv2D(8, 3, groups=4, name="grouped")(x)
    inner = keras.Input(x.shape[1:])
    nested = keras.Model(inner, layers.Conv2D(8, 3, padding="same", name="inner")(inner))
    x = layers.GlobalAveragePooling2D(name="pool")(nested(nested(x)))
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def test_nested_and_shared_layers_are_replaced_and_the_rest_is_named():
    model = mixed()
    chosen, left = choose_replacements(model, Lightening())
    assert [r.layer.name for r in chosen] == ["shared", "inner"]
    assert left == [
        "left as they are, the first convolution reads the raw channels (opt.lighten.keep_first): "
        "stem",
        "left as they are, a depthwise convolution has equal strides on both axes: uneven",
        "left as they are, a 1×1 convolution has nothing to separate: pointwise",
        "left as they are, Conv2DTranspose is no standard convolution: transposed",
        "left as they are, a grouped convolution is light already: grouped",
    ]
    result = lighten(model, chosen, Lightening())
    assert total_macs(result) == total_macs(model) - sum(r.macs[0] - r.macs[1] for r in chosen)
    assert {"shared/bias", "inner/bias"} <= {weight.path for weight in result.weights}


def test_shuffled_groups_can_be_saved(tmp_path):
    model = mixed()
    lightening = Lightening("grouped", shuffle=True)
    chosen, _ = choose_replacements(model, lightening)
    assert [r.layer.name for r in chosen] == ["shared", "uneven", "pointwise", "inner"]
    result = lighten(model, chosen, lightening)
    result.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(outputs(restored), outputs(result), atol=1e-6)


def test_nothing_to_replace_is_said():
    with pytest.raises(InputError, match="finds no convolution to replace in 'mlp': it has none"):
        choose_replacements(mlp.build((8, 8, 1), 3), Lightening())
    with pytest.raises(InputError, match=r"exclude matches no layer. Received: konv_1"):
        choose_replacements(cnn.build((8, 8, 1), 3), Lightening(), exclude=["konv_1"])
