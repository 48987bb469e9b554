"""Scores of single weights."""

import keras
import numpy as np
import pytest

from netopt_cli.graph import saliency
from netopt_cli.graph.gradients import task_loss
from netopt_cli.task.classification import CLASSIFICATION


@pytest.fixture
def model() -> keras.Model:
    inputs = keras.Input((4,))
    x = keras.layers.Dense(6, activation="relu", name="dense")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


@pytest.fixture
def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    return [
        (random.normal(size=(16, 4)).astype(np.float32), random.integers(0, 3, 16))
        for _ in range(3)
    ]


def kernels_of(model: keras.Model) -> list[keras.Variable]:
    return [model.get_layer("dense").kernel, model.get_layer("logits").kernel]


def test_taylor_foresees_what_a_weight_is_worth(model: keras.Model, batches: list) -> None:
    weights = kernels_of(model)
    weights[1].assign(0.01 * weights[1].numpy())  # small steps, so that the first order is right
    (_, scores) = saliency.taylor(CLASSIFICATION, model, weights, batches[:1])()
    before = float(task_loss(CLASSIFICATION, model, *batches[0]))
    start = weights[1].numpy()
    changes = np.zeros_like(start)
    for position in np.ndindex(*start.shape):
        without = start.copy()
        without[position] = 0
        weights[1].assign(without)
        changes[position] = abs(float(task_loss(CLASSIFICATION, model, *batches[0])) - before)
    assert np.corrcoef(changes.ravel(), scores.ravel())[0, 1] > 0.99


def test_snip_sums_over_batches_before_and_taylor_after_the_absolute_value(
    model: keras.Model, batches: list
) -> None:
    weights = kernels_of(model)
    snip = saliency.snip(CLASSIFICATION, model, weights, batches)()
    taylor = saliency.taylor(CLASSIFICATION, model, weights, batches)()
    for s, t in zip(snip, taylor, strict=True):
        assert (s <= t + 1e-6).all() and (s < 0.9 * t).any()
    alone = [
        f(CLASSIFICATION, model, weights, batches[:1])() for f in (saliency.snip, saliency.taylor)
    ]
    np.testing.assert_allclose(alone[0][0], alone[1][0], rtol=1e-5)


def test_lamp_orders_like_the_magnitude_and_keeps_the_largest_of_each_layer(
    model: keras.Model,
) -> None:
    weights = kernels_of(model)
    weights[0].assign(1e-3 * weights[0].numpy())
    for weight, scores in zip(weights, saliency.lamp(weights)(), strict=True):
        order = np.argsort(np.abs(weight.numpy()), axis=None)
        np.testing.assert_array_equal(np.argsort(scores, axis=None), order)
        assert scores.max() == pytest.approx(1.0)
        assert scores.ravel()[order[-2]] < 0.6


def test_random_scores_stay_the_same_and_depend_on_the_seed(model: keras.Model) -> None:
    weights = kernels_of(model)
    first, other = saliency.random(weights, 0), saliency.random(weights, 1)
    again = first()
    for a, b, c in zip(first(), again, other(), strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).all()
