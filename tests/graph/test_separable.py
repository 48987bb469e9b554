"""Separable convolutions taken apart: the same function, and layers that can be factorized."""

import keras
import numpy as np
import pytest

from netopt_cli.graph.ranks import choose_factorizations
from netopt_cli.graph.separable import split_separable

X = np.random.default_rng(0).normal(size=(2, 12, 12, 4)).astype("float32")


@pytest.mark.parametrize(
    "options",
    [
        {"strides": 2, "activation": "relu"},
        {"dilation_rate": 2, "padding": "same", "use_bias": False},
        {"depth_multiplier": 3, "padding": "same"},
    ],
)
def test_the_parts_compute_the_same(options: dict) -> None:
    inputs = keras.Input((12, 12, 4))
    shared = keras.layers.SeparableConv2D(
        16, 3, **options, bias_initializer="normal", name="separable"
    )
    outputs = [keras.layers.GlobalAveragePooling2D()(shared(x)) for x in (inputs, -inputs)]
    model = keras.Model(inputs, keras.layers.Concatenate()(outputs))
    split = split_separable(model)
    np.testing.assert_allclose(split(X), model(X), rtol=1e-5, atol=1e-6)
    assert type(split.get_layer("separable")) is keras.layers.Conv2D
    assert split.count_params() == model.count_params()
    assert split_separable(model, lambda name: name != "separable") is model


def test_series_too_and_the_wide_part_is_factorized() -> None:
    inputs = keras.Input((12, 24))
    x = keras.layers.SeparableConv1D(64, 3, activation="relu", name="separable")(inputs)
    model = keras.Model(inputs, x)
    split = split_separable(model)
    series = np.repeat(X[:, :, 0], 6, axis=-1)
    np.testing.assert_allclose(split(series), model(series), rtol=1e-5, atol=1e-6)
    chosen, _ = choose_factorizations(split, rank_by="macs", amount=0.6)
    assert [each.layer.name for each in chosen] == ["separable"]


def test_a_model_without_one_is_left_as_it_is() -> None:
    inputs = keras.Input((12, 24))
    model = keras.Model(inputs, keras.layers.Conv1D(4, 3)(inputs))
    assert split_separable(model) is model
