"""New weights for a network."""

import keras
import numpy as np
import pytest

from netopt_cli.errors import ArchError
from netopt_cli.graph.reinitialize import reinitialize


def network() -> keras.Model:
    inputs = keras.Input((4,))
    block = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6, name="inner")], name="block")
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(6, name="dense")(inputs))
    x = keras.layers.Dense(6, name="frozen", trainable=False)(block(x))
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def test_trainable_weights_are_new_and_the_rest_stays() -> None:
    model = network()
    for weight in model.weights:
        weight.assign(weight.numpy() + 1)
    before = model.get_weights()
    reinitialize(model, 5)
    first = model.get_weights()
    for weight, old, new in zip(model.weights, before, first, strict=True):
        assert np.array_equal(old, new) is (not weight.trainable), weight.path
    reinitialize(model, 5)
    for once, twice in zip(first, model.get_weights(), strict=True):
        np.testing.assert_array_equal(once, twice)
    reinitialize(model, 6)
    assert not np.allclose(first[0], model.get_weights()[0])


def test_a_subclassed_model_is_refused() -> None:
    class Own(keras.Model):
        pass

    with pytest.raises(ArchError, match="subclassed"):
        reinitialize(Own(), 0)
