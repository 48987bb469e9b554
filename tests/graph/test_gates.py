"""Learned importances: what stands for a weight, and what its gradient is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from netopt_cli.graph.gates import SPEED, HardConcrete, Movement, WeightNoise, learning
from netopt_cli.graph.masks import Masks

SEED = tf.constant([1, 2])


def weight_of(values: list[float]) -> keras.Variable:
    return keras.Variable(np.array(values, np.float32), name="kernel")


def test_movement_masks_forward_and_lets_gradients_of_scores_through() -> None:
    weight = weight_of([2.0, -3.0])
    movement = Movement([weight])
    mask = tf.constant([1.0, 0.0])
    with tf.GradientTape() as tape:
        stand_in = movement.stand_in(0, mask, SEED)
        loss = tf.reduce_sum(stand_in * [5.0, 7.0])
    of_weight, of_score = tape.gradient(loss, [weight.value, movement.variables[0].value])
    np.testing.assert_array_equal(stand_in, [2.0, 0.0])
    np.testing.assert_allclose(of_weight, [5.0, 0.0])
    np.testing.assert_allclose(of_score / Movement.SCALE, [10.0, -21.0], rtol=1e-5)


def test_gates_open_and_shut_with_log_alpha() -> None:
    weight = weight_of([1.0] * 3000)
    gates = HardConcrete([weight], sparsity=0.5, factor=1.0)
    gates.variables[0].assign(np.repeat([10, -10, -HardConcrete.START], 1000) / SPEED)
    gates.variables[0].assign(gates.variables[0].numpy())
    values = gates.stand_in(0, tf.ones(3000), SEED).numpy()
    assert (values[:1000] == 1).mean() > 0.99 and (values[1000:2000] == 0).mean() > 0.99
    middle = values[2000:]  # log alpha 0: symmetric, with both ends
    assert (middle == 0).mean() == pytest.approx((middle == 1).mean(), abs=0.06)
    assert middle.mean() == pytest.approx(0.5, abs=0.05) and (middle == 0).any()
    gates.settle()
    np.testing.assert_allclose(weight.numpy(), np.repeat([1, 0, 0.5], 1000), atol=1e-4)
    assert gates.summary().startswith("33.3%")


def test_the_l0_penalty_counts_open_gates_and_rests_at_the_wanted_sparsity() -> None:
    gates = HardConcrete([weight_of([1.0] * 100)], sparsity=0.8, factor=0.1)
    assert float(gates.penalty()) == pytest.approx(0.1 * (97.3 - 20), abs=0.1)
    gates.variables[0].assign(np.repeat([1, -1], [15, 85]))
    assert float(gates.penalty()) == 0.0


def test_noise_is_additive_and_scores_are_signal_to_noise() -> None:
    weight = weight_of([3.0] * 2000 + [1e-3] * 2000)
    noise = WeightNoise([weight], factor=1.0)
    sigma = np.exp(WeightNoise.START) * np.sqrt(4.5)
    values = noise.stand_in(0, tf.ones(4000), SEED).numpy()
    assert values[:2000].std() == pytest.approx(sigma, rel=0.05)
    assert values[2000:].std() == pytest.approx(sigma, rel=0.05)
    assert values[:2000].mean() == pytest.approx(3.0, abs=0.05)
    log_alpha = -noise.scores()[0]
    np.testing.assert_allclose(log_alpha[0], 2 * np.log(sigma / 3), rtol=1e-4)
    assert noise.summary().startswith("50.0%")
    masked = noise.stand_in(0, tf.zeros(4000), SEED).numpy()
    assert not masked.any()


def test_the_divergence_falls_with_the_noise() -> None:
    noise = WeightNoise([weight_of([1.0] * 10)], factor=0.5)
    losses = []
    for log_sigma in (-1, 0, 2, 10):
        noise.variables[0].assign(np.full(10, (log_sigma - WeightNoise.START) / SPEED))
        losses.append(float(noise.penalty()))
    assert sorted(losses, reverse=True) == losses
    assert losses[-1] == pytest.approx(0.0, abs=1e-3)
    # Equation 14 at log alpha = 0, for ten weights.
    at_zero = -0.63576 * (1 / (1 + np.exp(-1.87320))) + 0.5 * np.log(2) + 0.63576
    assert losses[1] == pytest.approx(0.5 * 10 * at_zero, rel=1e-3)


def test_learning_gives_each_weight_its_own_noise() -> None:
    weights = [weight_of([1.0] * 50), weight_of([1.0] * 50)]
    gates = HardConcrete(weights, sparsity=0.5, factor=1.0)
    modifier = learning(gates, weights, Masks(weights, keep_zeros=False))
    pairs = modifier.substitute(SEED)
    assert [id(weight) for weight, _ in pairs] == [id(weight) for weight in weights]
    assert not np.allclose(pairs[0][1], pairs[1][1])
    assert len(modifier.variables) == 2 and modifier.settles_at == 1.0
