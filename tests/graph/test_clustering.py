"""Codebooks on the line, and holding weights to them."""

from itertools import pairwise

import keras
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from netopt_cli.graph.clustering import (
    SharedValues,
    codebook,
    keep_codebook,
    share,
    shareable,
)
from netopt_cli.graph.incremental_codebooks import incremental_codebooks

INITIALIZATIONS = ["linear", "density", "kmeans++"]
FLOATS = st.floats(-100, 100, width=32)


def error(values: np.ndarray, centroids: np.ndarray) -> float:
    return float(np.square(values[:, None].astype(float) - centroids).min(axis=1).mean())


@example(np.array([1.5, 2.220446e-16, 2, 0.5, 1, -3, 0, 0], np.float32), 6, "density")
@example(np.array([-1, -2, -3.7e-24], np.float32), 2, "linear")
@given(
    npst.arrays(np.float32, st.integers(1, 60), elements=FLOATS),
    st.integers(2, 9),
    st.sampled_from(INITIALIZATIONS),
)
def test_a_codebook_is_a_fixed_point_of_lloyds_algorithm(values, clusters, initialization):
    found = codebook(values, clusters, initialization=initialization, seed=0)
    assert 1 <= len(found) <= clusters and (np.diff(found) > 0).all()
    assert values.min() <= found[0] and found[-1] <= values.max()
    distances = np.abs(values[:, None].astype(float) - found)
    # A value as near to two centroids belongs to either: which one, rounding decides.
    near, next_near = np.sort(np.pad(distances, ((0, 0), (0, 1)), constant_values=np.inf))[:, :2].T
    assume((next_near - near > 1e-4).all())
    nearest = distances.argmin(axis=1)
    for index, centroid in enumerate(found):
        members = values[nearest == index]
        if len(members):
            assert centroid == pytest.approx(members.mean(dtype=float), abs=1e-3, rel=1e-3)


def test_a_value_between_two_centroids_goes_where_it_is_counted():
    values = np.array([-1, 0, 0, 1, 3], np.float32)  # 1 is as near to 0 as to 2
    found = codebook(values, 3, initialization="density", seed=0)
    nearest = np.abs(values[:, None] - found).argmin(axis=1)  # the lower one, as `share` has it
    np.testing.assert_allclose(found, [values[nearest == i].mean() for i in range(3)], rtol=1e-6)


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_well_separated_values_are_found(initialization):
    random = np.random.default_rng(0)
    centers = np.array([-3, -1, 0.5, 2], np.float32)
    values = random.choice(centers, 4000) + random.normal(0, 0.02, 4000).astype(np.float32)
    found = codebook(values, 4, initialization=initialization, seed=0)
    np.testing.assert_allclose(found, centers, atol=0.01)
    again = codebook(values, 4, initialization=initialization, seed=0)
    np.testing.assert_array_equal(found, again)


def test_more_values_stand_for_the_weights_better():
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    errors = [error(values, codebook(values, n, initialization="linear", seed=0)) for n in
              (2, 4, 8, 16)]  # fmt: skip
    assert all(few > 3 * many for few, many in pairwise(errors))
    # Max (1960), table I: the least error of 8 values for a Gaussian.
    assert errors[2] == pytest.approx(0.03454, rel=0.03)


def network(*, biases: bool = True) -> keras.Model:
    inputs = keras.Input((6,))
    x = keras.layers.Dense(9, use_bias=biases, bias_initializer="normal", name="first")(inputs)
    return keras.Model(inputs, keras.layers.Dense(4, name="second")(x))


def test_biases_are_shared_when_asked_for():
    model = network()
    assert list(shareable(model, biases=False)) == ["first/kernel", "second/kernel"]
    assert set(shareable(model, biases=True)) == {
        "first/kernel", "first/bias", "second/kernel", "second/bias",
    }  # fmt: skip


@pytest.mark.parametrize("preserve_zeros", [True, False])
def test_sharing_counts_zero_among_its_values(preserve_zeros):
    model = network()
    kernel = model.get_layer("first").kernel
    weights = kernel.numpy()
    weights[:3] = 0
    kernel.assign(weights)
    share([kernel], 5, preserve_zeros=preserve_zeros, initialization="linear", seed=0)
    shared = kernel.numpy()
    assert len(np.unique(shared)) <= 5
    if preserve_zeros:
        np.testing.assert_array_equal(shared == 0, weights == 0)
    assert np.abs(shared - weights).max() < 0.35 * np.ptp(weights)
    assert not (shared.view(np.uint32) & 0xFFFF).any(), "values are bfloat16"


def test_a_layer_of_zeros_stays():
    model = network()
    kernel = model.get_layer("first").kernel
    kernel.assign(np.zeros(kernel.shape))
    share([kernel], 4, preserve_zeros=True, initialization="linear", seed=0)
    assert not kernel.numpy().any()


def test_equal_weights_take_the_mean_step_and_stay_equal():
    model = network()
    first = model.get_layer("first")
    together = [first.kernel, first.bias]
    share(together, 4, preserve_zeros=False, initialization="linear", seed=0)
    before = [v.numpy() for v in together]
    values = np.unique(np.concatenate([w.ravel() for w in before]))
    constrain = keep_codebook([["first/kernel", "first/bias", "gone/kernel"], ["gone"]])(
        model
    ).constrain
    random = np.random.default_rng(0)
    steps = [random.normal(0, 0.1, w.shape).astype(np.float32) for w in before]
    for variable, step in zip(together, steps, strict=True):
        variable.assign(variable + step)
    constrain()
    for value in values:
        members = [w == value for w in before]
        step = np.concatenate([s[m] for s, m in zip(steps, members, strict=True)]).mean()
        after = np.unique(
            np.concatenate([v.numpy()[m] for v, m in zip(together, members, strict=True)])
        )
        assert after == pytest.approx([value + step], rel=0.005, abs=1e-4)


def test_steps_smaller_than_the_rounding_add_up():
    model = network()
    kernel = model.get_layer("first").kernel
    kernel.assign(np.ones(kernel.shape))
    constrain = keep_codebook([["first/kernel"]])(model).constrain
    for _ in range(200):
        kernel.assign(kernel + 1e-4)
        constrain()
    np.testing.assert_allclose(kernel.numpy(), 1.02, atol=0.005)


def test_what_another_constraint_zeroes_stays_zero_and_moves_no_value():
    model = network()
    kernel = model.get_layer("first").kernel
    weights = np.where(np.arange(54).reshape(6, 9) % 2, 0.5, -0.25).astype(np.float32)
    kernel.assign(weights)
    constrain = keep_codebook([["first/kernel"]])(model).constrain
    weights[:2] = 0
    kernel.assign(weights)
    constrain()
    np.testing.assert_array_equal(kernel.numpy(), weights)
    kernel.assign(np.where(weights == 0, weights, weights + 0.125))
    constrain()
    np.testing.assert_array_equal(kernel.numpy(), np.where(weights == 0, 0, weights + 0.125))


def test_weights_go_to_their_values_a_few_at_a_time_the_nearest_first():
    model = network()
    group = list(shareable(model, biases=True).values())
    weights = np.concatenate([v.numpy().ravel() for v in group])
    modifier = incremental_codebooks(
        [group], 6, preserve_zeros=False, initialization="linear", seed=0
    )
    values = codebook(weights, 6, initialization="linear", seed=0)
    distances = np.abs(weights[:, None] - values).min(axis=1)
    moved = []
    for step in range(101):
        modifier.before_steps(step, 100)
        now = np.concatenate([v.numpy().ravel() for v in group])
        moved.append(now != weights)
    counts = [int(m.sum()) for m in moved]
    assert counts[0] == 0 and counts == sorted(counts)
    assert len(set(counts)) > 10
    half = next(m for m in moved if m.mean() > 0.5)
    assert distances[half].max() < distances[~half].mean() < distances.max()
    assert all(moved[int(modifier.settles_at * 100)])
    assert len(np.unique(now)) <= 6


def test_weights_that_are_free_move_alone_the_others_with_their_value():
    model = network()
    kernel = model.get_layer("first").kernel
    kernel.assign(np.linspace(-1, 1, 54).reshape(6, 9))
    values = np.array([-0.5, 0.5], np.float32)
    indices = np.where(kernel.numpy() > 0.5, 1, -1)
    held = indices == 1
    shared = SharedValues([kernel], values, [indices])
    kernel.assign(np.where(held, 0.5, kernel.numpy()))
    step = np.random.default_rng(0).normal(0, 0.1, kernel.shape)
    moved = kernel.numpy() + step.astype(np.float32)
    kernel.assign(moved)
    shared.constrain()
    np.testing.assert_array_equal(kernel.numpy()[~held], moved[~held])
    np.testing.assert_allclose(kernel.numpy()[held], 0.5 + step[held].mean(), rtol=0.005)
    np.testing.assert_allclose(shared.values.numpy(), [-0.5, 0.5 + step[held].mean()], rtol=1e-5)


@pytest.mark.parametrize("preserve_zeros", [True, False])
def test_zero_is_a_value_that_weights_may_go_to_when_zeros_are_preserved(preserve_zeros):
    model = network()
    kernel = model.get_layer("first").kernel
    weights = np.where(np.arange(54) % 2, 0, np.linspace(0.5, 1.5, 54))
    weights[10], weights[12] = 0.01, 0.7
    kernel.assign(weights.reshape(6, 9))
    modifier = incremental_codebooks(
        [[kernel]], 4, preserve_zeros=preserve_zeros, initialization="density", seed=0
    )
    modifier.before_steps(1, 1)
    after = kernel.numpy().ravel()
    assert len(np.unique(after)) <= 4
    if preserve_zeros:
        assert not after[1::2].any() and after[10] == 0 and after[12] > 0.5
