"""What the losses of distillation measure, and what they leave out of account."""

import numpy as np
import pytest
import tensorflow as tf

from netopt_cli.graph import distillation_losses as losses

RANDOM = np.random.default_rng(0)
START = RANDOM.bit_generator.state


@pytest.fixture(autouse=True)
def the_same_draws_in_any_order_of_the_tests() -> None:
    RANDOM.bit_generator.state = START


def draw(*shape: int) -> tf.Tensor:
    return tf.constant(RANDOM.normal(size=shape).astype(np.float32))


def test_soft_targets_are_the_divergence_at_the_temperature() -> None:
    student, teacher = draw(6, 5), draw(6, 5)
    p, q = tf.nn.softmax(teacher / 3).numpy(), tf.nn.softmax(student / 3).numpy()
    expected = 9 * np.sum(p * np.log(p / q), axis=-1)
    found = losses.soft_target_loss(student, tf.constant(p), 3.0)
    np.testing.assert_allclose(found, expected.mean(), rtol=1e-4)
    only_first = losses.soft_target_loss(
        student, tf.constant(p), 3.0, tf.constant([1.0, 0, 0, 0, 0, 0])
    )
    np.testing.assert_allclose(only_first, expected[0] / 6, rtol=1e-4)


def test_decoupling_with_the_teachers_own_weight_is_the_divergence_again() -> None:
    """KL = KL of (true, rest) + (1 - p_true) * KL among the rest: equation 7 of the paper."""
    student, teacher, y = draw(1, 5), draw(1, 5), tf.one_hot([2], 5)
    target = tf.nn.softmax(teacher / 4)
    rest = 1.0 - float(target[0, 2])
    decoupled = losses.decoupled_loss(student, target, y, 4.0, rest)
    np.testing.assert_allclose(decoupled, losses.soft_target_loss(student, target, 4.0), rtol=1e-4)
    assert losses.decoupled_loss(student, target, y, 4.0, 8.0) > decoupled


def test_decoupling_is_finite_where_the_teacher_is_certain() -> None:
    student = tf.Variable(draw(2, 4))
    with tf.GradientTape() as tape:
        target = tf.nn.softmax(tf.constant([[200.0, 0, 0, 0], [0, 200.0, 0, 0]]))
        loss = losses.decoupled_loss(student, target, tf.one_hot([0, 1], 4), 1.0, 8.0)
    assert np.isfinite(loss) and np.isfinite(tape.gradient(loss, student)).all()


SAME = {
    "hint": losses.hint_loss,
    "attention": losses.attention_loss,
    "similarity": losses.similarity_loss,
}


@pytest.mark.parametrize("name", SAME)
def test_equal_features_cost_nothing(name: str) -> None:
    x = draw(8, 4, 4, 3)
    assert abs(float(SAME[name](x, x))) < 1e-5 < float(SAME[name](x, draw(8, 4, 4, 3)))


def test_attention_sees_where_not_which_channel_nor_how_strong() -> None:
    x = draw(4, 6, 6, 8)
    other_channels = 5.0 * tf.gather(x, RANDOM.permutation(8), axis=-1)
    assert float(losses.attention_loss(x, other_channels)) < 1e-5
    assert float(losses.attention_loss(x, tf.reverse(x, [1]))) > 0.1
    smooth = tf.image.resize(draw(4, 3, 3, 8), (12, 12))
    half = tf.image.resize(smooth, (6, 6), antialias=True)
    assert float(losses.attention_loss(half, smooth)) < 0.1


def test_relations_do_not_change_with_scale_and_rotation() -> None:
    x = draw(10, 6)
    rotation, _ = np.linalg.qr(RANDOM.normal(size=(6, 6)))
    moved = 7.0 * tf.matmul(x, tf.constant(rotation.astype(np.float32))) + 1.0
    assert float(losses.relational_loss(moved, x)) < 1e-4
    assert float(losses.relational_loss(draw(10, 3), x)) > 0.05


def test_relations_have_a_gradient_where_samples_coincide() -> None:
    x = tf.Variable(tf.zeros((4, 3)))
    with tf.GradientTape() as tape:
        loss = losses.relational_loss(x, draw(4, 3))
    assert np.isfinite(tape.gradient(loss, x)).all()


def test_contrast_is_low_when_each_sample_is_nearest_to_its_own_partner() -> None:
    x = draw(16, 8)
    own = float(losses.contrastive_loss(x, 3.0 * x, 0.1))
    shuffled = float(losses.contrastive_loss(x, tf.roll(x, 1, axis=0), 0.1))
    assert own < 0.1 < np.log(16) < shuffled


@pytest.mark.parametrize("size", [8, 32])
def test_losses_do_not_grow_with_the_batch(size: int) -> None:
    big_own, big_shown = draw(64, 6), draw(64, 6)
    own, shown = big_own[:size], big_shown[:size]
    for loss in (losses.hint_loss, losses.similarity_loss, losses.relational_loss):
        assert float(loss(own, shown)) == pytest.approx(float(loss(big_own, big_shown)), rel=0.6)
