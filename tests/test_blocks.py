import typing

import keras
import numpy as np
import pytest

from netopt_cli import blocks
from netopt_cli.errors import ArchError

CONVOLUTIONS = typing.get_args(blocks.Convolution)
NORMALIZATIONS = typing.get_args(blocks.Normalization)
ACTIVATIONS = typing.get_args(blocks.Activation)


def unit(channels: int = 8, **options: typing.Any) -> keras.Model:
    inputs = keras.Input((6, 6, channels))
    return keras.Model(inputs, blocks.conv_unit(inputs, 12, 3, name="conv_1", **options))


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("channels", [1, 8])
def test_every_unit_gives_finite_outputs_of_its_shape(convolution, normalization, channels):
    model = unit(channels, convolution=convolution, normalization=normalization, strides=2)
    y = model(np.random.default_rng(0).normal(size=(2, 6, 6, channels)).astype("float32"))
    assert y.shape == (2, 3, 3, 12)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_known_to_keras(activation):
    has_layer = any(layer.name == "conv_1_act" for layer in unit(activation=activation).layers)
    assert has_layer == (activation != "linear")


def test_order_is_convolution_normalization_activation():
    names = [layer.name for layer in unit(normalization="batch").layers[1:]]
    assert names == ["conv_1", "conv_1_bn", "conv_1_act"]


def test_without_final_activation_only_the_last_part_is_linear():
    model = unit(convolution="bottleneck", final_activation=False)
    assert [layer.name for layer in model.layers[1:]] == [
        "conv_1_reduce",
        "conv_1_reduce_act",
        "conv_1_spatial",
        "conv_1_spatial_act",
        "conv_1_expand",
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"normalization": "batch"}, False),
        ({"normalization": "batch", "use_bias": True}, True),
    ],
)
def test_bias_only_without_normalization(options, expected):
    assert unit(**options).get_layer("conv_1").use_bias is expected


@pytest.mark.parametrize(("channels", "groups"), [(8, 4), (6, 2), (5, 1)])
def test_groups_adapt_to_a_divisor_of_the_channels(channels, groups):
    assert unit(channels, convolution="grouped").get_layer("conv_1").groups == groups


def test_lighter_convolutions_have_fewer_parameters():
    sizes = {kind: unit(convolution=kind).count_params() for kind in CONVOLUTIONS}
    assert max(sizes, key=sizes.get) == "standard"
    assert len(set(sizes.values())) == len(sizes)


def test_signal_survives_a_deep_depthwise_stack():
    inputs = x = keras.Input((8, 8, 64))
    for i in range(12):
        x = blocks.conv_unit(x, 64, 3, name=f"conv_{i}", convolution="depthwise_separable")
    data = np.random.default_rng(0).normal(size=(4, 8, 8, 64)).astype("float32")
    keras.utils.set_random_seed(0)
    assert 1e-3 < np.std(keras.Model(inputs, x)(data)) < 1e3


def test_shortcut_is_the_identity_when_the_shape_stays():
    inputs = keras.Input((4, 4, 3))
    branch = keras.layers.Conv2D(3, 3, padding="same", kernel_initializer="zeros")(inputs)
    model = keras.Model(inputs, blocks.add_shortcut(inputs, branch, name="block_1"))
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_array_equal(model(x), x)


def test_shortcut_projects_when_the_shape_changes():
    inputs = keras.Input((5, 5, 3))
    branch = keras.layers.Conv2D(6, 3, strides=2, padding="same")(inputs)
    model = keras.Model(inputs, blocks.add_shortcut(inputs, branch, name="block_1", strides=2))
    assert model.output_shape == (None, 3, 3, 6)
    assert model.get_layer("block_1_shortcut").kernel.shape == (1, 1, 3, 6)


@pytest.mark.parametrize(
    ("shape", "most", "expected"),
    [
        ((8, 8, 1), 5, 1),
        ((28, 28, 1), 5, 3),
        ((32, 64, 3), 5, 3),
        ((224, 224, 3), 5, 5),
        ((224, 224, 3), 2, 2),
        ((3, 3, 1), 5, 0),
    ],
)
def test_fitting_halvings(shape, most, expected):
    assert blocks.fitting_halvings(shape, most=most) == expected


def test_halvings_that_do_not_fit_name_the_smallest_side_and_the_advice():
    blocks.require_halvings((8, 8, 1), 3, arch="vgg", advice="Shorten arch.widths")
    with pytest.raises(ArchError, match=r"at least 16x16.*Received: 8x32.*Shorten arch\.widths"):
        blocks.require_halvings((8, 32, 1), 4, arch="vgg", advice="Shorten arch.widths")
