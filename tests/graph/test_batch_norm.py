"""Moving statistics estimated anew."""

import keras
import numpy as np
import pytest

from netopt_cli.graph.batch_norm import recalibrate


def network() -> keras.Model:
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    x = keras.layers.Dense(5, name="dense")(x)
    x = keras.layers.BatchNormalization(name="norm_2")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def batches(*sizes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    return [
        (random.normal(1, 2, (n, 6, 6, 2)).astype(np.float32), np.zeros(n, np.int32)) for n in sizes
    ]


def test_the_statistics_are_those_of_all_the_samples_together() -> None:
    model = network()
    given = batches(64, 37)
    assert recalibrate(model, given) == 2
    seen = model.get_layer("conv")(np.concatenate([x for x, _ in given])).numpy()
    norm = model.get_layer("norm")
    np.testing.assert_allclose(norm.moving_mean, seen.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, seen.var((0, 1, 2)), rtol=1e-4)


def test_nothing_else_of_the_model_changes() -> None:
    model = network()
    before = {weight.path: weight.numpy() for weight in model.weights}
    recalibrate(model, batches(64))
    changed = {w.path for w in model.weights if not np.array_equal(w.numpy(), before[w.path])}
    assert changed == {
        f"{name}/moving_{what}" for name in ("norm", "norm_2") for what in ("mean", "variance")
    }
    assert model.get_layer("norm").momentum == pytest.approx(0.99)


def test_frozen_layers_and_empty_batches_change_nothing() -> None:
    model = network()
    assert recalibrate(model, []) == 0
    model.get_layer("norm").trainable = False
    before = model.get_layer("norm").get_weights()
    assert recalibrate(model, batches(64)) == 1
    for new, old in zip(model.get_layer("norm").get_weights(), before, strict=True):
        np.testing.assert_array_equal(new, old)
    assert recalibrate(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), []) == 0
