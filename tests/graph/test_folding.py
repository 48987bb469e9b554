import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from netopt_cli.arch import mobilenet, resnet
from netopt_cli.graph.folding import fold_batch_norms

PARTS = {
    "norm": layers.BatchNormalization,
    "plain norm": lambda: layers.BatchNormalization(scale=False, center=False),
    "conv": lambda: layers.Conv2D(6, 3, padding="same"),
    "conv relu": lambda: layers.Conv2D(4, 2, activation="relu", use_bias=False),
    "grouped": lambda: layers.Conv2D(4, 2, groups=2),
    "pointwise": lambda: layers.Conv2D(4, 1, padding="same", use_bias=False),
    "depthwise": lambda: layers.DepthwiseConv2D(2, depth_multiplier=2),
    "separable": lambda: layers.SeparableConv2D(4, 2, use_bias=False),
    "transposed": lambda: layers.Conv2DTranspose(4, 2, strides=2),
    "dense": lambda: layers.Dense(4),
    "relu": layers.ReLU,
}


def randomize(model: keras.Model) -> keras.Model:
    """Weights and statistics as after a training: nothing is 0 or 1, variances are positive."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        values = random.normal(size=weight.shape)
        scaled = np.abs(values) + 0.5 if "variance" in weight.name else values
        weight.assign(scaled if len(weight.shape) < 2 else scaled / np.sqrt(values[..., 0].size))
    return model


def norms(model: keras.Model) -> list[str]:
    return [x.name for x in model.layers if isinstance(x, layers.BatchNormalization)]


def assert_same_outputs(first: keras.Model, second: keras.Model) -> None:
    x = np.random.default_rng(1).normal(size=(3, *first.input_shape[1:])).astype("float32")
    expected, actual = first(x).numpy(), second(x).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-4 * max(1.0, np.abs(expected).max()))


@settings(max_examples=30, deadline=None)
@given(parts=st.lists(st.sampled_from(sorted(PARTS)), min_size=2, max_size=7), branch=st.booleans())
def test_outputs_stay_the_same_on_random_graphs(parts, branch):
    inputs = keras.Input((9, 9, 4))
    x, middle = inputs, None
    for index, part in enumerate(parts):
        filters_divide = x.shape[-1] % 2 == 0
        x = PARTS[part if part != "grouped" or filters_divide else "conv"]()(x)
        if min(x.shape[1:3]) < 3 or x.shape[-1] > 20:
            break
        if branch and index == len(parts) // 2:
            middle = layers.GlobalAveragePooling2D()(x)
    if middle is not None:
        x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), middle])
    model = randomize(keras.Model(inputs, x))
    before = [w.copy() for w in model.get_weights()]
    folded, lines, left = fold_batch_norms(model)
    assert_same_outputs(model, folded)
    assert len(norms(folded)) + len(lines) == len(norms(model))
    assert bool(left) == bool(norms(folded))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def chain(*parts: keras.Layer, shape: tuple[int, ...] = (7, 7, 4)) -> keras.Model:
    return randomize(keras.Sequential([keras.Input(shape), *parts]))


BN = layers.BatchNormalization


@pytest.mark.parametrize(
    "parts",
    [
        lambda: [layers.Conv2D(5, 3, strides=2), BN()],
        lambda: [layers.Conv2D(4, 3, groups=2, use_bias=False), BN()],
        lambda: [layers.DepthwiseConv2D(3, depth_multiplier=3), BN()],
        lambda: [layers.SeparableConv2D(5, 3, depth_multiplier=2), BN()],
        lambda: [layers.Conv2DTranspose(5, 3, strides=2), BN()],
        lambda: [layers.Dense(5), BN(), BN()],
        lambda: [BN(), layers.Conv2D(5, 3, activation="relu")],
        lambda: [BN(), layers.Conv2D(4, 3, groups=2), BN()],
        lambda: [BN(), layers.Conv2D(5, 1, strides=2, padding="same", use_bias=False)],
        lambda: [BN(), layers.DepthwiseConv2D(3, depth_multiplier=2)],
        lambda: [BN(), layers.Dense(5, activation="tanh")],
    ],
)
def test_every_norm_here_is_folded(parts):
    model = chain(*parts())
    folded, lines, left = fold_batch_norms(model)
    assert norms(folded) == [] and left == [] and len(lines) == len(norms(model))
    assert_same_outputs(model, folded)
    assert folded.count_params() < model.count_params()


@pytest.mark.parametrize(
    "make",
    [layers.Conv1D, layers.Conv1DTranspose, layers.SeparableConv1D],
    ids=lambda c: c.__name__,
)
def test_1d(make):
    model = chain(make(5, 3), BN(), shape=(8, 4))
    folded, _, left = fold_batch_norms(model)
    assert left == []
    assert_same_outputs(model, folded)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([layers.Conv2D(4, 3, activation="relu", name="c"), BN(name="n")], "activation of c comes"),
        ([BN(name="n"), layers.Conv2D(4, 3, padding="same", name="c")], "c pads with zeros after"),
        ([BN(name="n"), layers.ReLU()], "no convolution or dense layer is before it, and none"),
        ([layers.Conv2D(4, 3, name="c"), BN(axis=1, name="n")], "its axis is not that of the ch"),
        ([layers.Dense(4, bias_constraint="non_neg", name="d"), BN(name="n")], "d are constrained"),
    ],
)
def test_what_cannot_be_folded_is_left_and_said(parts, reason):
    model = chain(*parts)
    folded, lines, left = fold_batch_norms(model)
    assert norms(folded) == ["n"] and lines == []
    assert len(left) == 1 and reason in left[0] and left[0].endswith(": n")
    assert_same_outputs(model, folded)


def test_shared_layers_stay():
    inputs = keras.Input((6, 6, 4))
    conv = layers.Conv2D(4, 3, padding="same", name="conv")
    x = BN(name="first")(conv(inputs))
    x = layers.ReLU()(BN(name="second")(conv(x)))
    norm = BN(name="twice")
    x = norm(layers.Dense(4)(norm(layers.Dense(4)(x))))
    model = randomize(keras.Model(inputs, x))
    folded, _, left = fold_batch_norms(model)
    assert norms(folded) == ["first", "second", "twice"]
    assert {line.rpartition(": ")[2] for line in left} == {"first", "second", "twice"}
    assert "conv is called in several places" in left[0] and "called in several" in left[2]
    assert_same_outputs(model, folded)


def test_a_nested_model_that_is_called_twice_is_folded_inside():
    inner = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2D(4, 3, padding="same"), BN()])
    inputs = keras.Input((6, 6, 4))
    model = randomize(keras.Model(inputs, inner(inner(inputs))))
    folded, lines, left = fold_batch_norms(model)
    assert len(lines) == 1 and left == []
    assert_same_outputs(model, folded)


def test_a_layer_whose_output_is_used_elsewhere_is_left():
    inputs = keras.Input((6,))
    x = layers.Dense(6, name="dense")(inputs)
    model = randomize(keras.Model(inputs, layers.Add()([x, BN(name="norm")(x)])))
    folded, _, left = fold_batch_norms(model)
    assert norms(folded) == ["norm"] and "what dense computes is used elsewhere too" in left[0]
    assert_same_outputs(model, folded)


@pytest.mark.parametrize("arch", [resnet, mobilenet])
def test_archs_are_folded_whole_and_zeros_stay(arch):
    model = randomize(arch.build((8, 8, 3), 3))
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            kernel, *bias = layer.get_weights()
            layer.set_weights([np.where(np.abs(kernel) < 0.1, 0, kernel), *bias])
    folded, _, left = fold_batch_norms(model)
    assert norms(folded) == [] and left == []
    assert_same_outputs(model, folded)
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            zeros = layer.kernel.numpy() == 0
            np.testing.assert_array_equal(folded.get_layer(layer.name).kernel.numpy() == 0, zeros)
