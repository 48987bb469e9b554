"""Masks from scores."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.masks import Masks, NOfM, Unstructured, in_full, input_axes, largest, n_of_m

SCORES = arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-4, 4, width=32))


@settings(max_examples=60, deadline=None)
@given(st.lists(SCORES, min_size=1, max_size=4), st.floats(0, 0.99))
def test_the_smallest_go_and_no_array_is_emptied(scores: list, sparsity: float) -> None:
    masks = largest(scores, sparsity)
    total = sum(s.size for s in scores)
    removed = sum(int((~m).sum()) for m in masks)
    assert round(sparsity * total) - len(scores) <= removed <= round(sparsity * total)
    assert all(mask.any() for mask in masks)
    flat = np.concatenate(scores)
    kept = np.concatenate(masks)
    if removed == round(sparsity * total) and removed:
        assert flat[~kept].max() <= flat[kept].min()


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(2, 6), st.integers(0, 3))
def test_n_of_m_keeps_the_largest_of_each_block(data: st.DataObject, m: int, axis: int) -> None:
    shape = [2, 3, 2, 3]
    shape[axis] = 2 * m
    n = data.draw(st.integers(1, m - 1))
    scores = np.random.default_rng(m).permutation(np.prod(shape)).reshape(shape)
    mask = np.moveaxis(n_of_m(scores, n, m, axis), axis, -1).reshape(-1, m)
    blocks = np.moveaxis(scores, axis, -1).reshape(-1, m)
    assert (mask.sum(-1) == n).all()
    assert (np.where(mask, blocks, np.inf).min(-1) > np.where(mask, -np.inf, blocks).max(-1)).all()


def test_groups_have_their_own_sparsity_and_schedule() -> None:
    random = np.random.default_rng(0)
    scores = [random.random((10, 10)), random.random((10, 10)) + 1, random.random(20)]
    pattern = Unstructured((((0, 1), 0.5), ((2,), 0.25)))
    masks = pattern(scores, in_full)
    assert [int(m.sum()) for m in masks] == [1, 100, 15]
    half = pattern(scores, lambda sparsity: sparsity / 2)
    assert [int(m.sum()) for m in half] == [50, 100, 18]
    shuffled = pattern.shuffled(masks, random)
    assert [int(m.sum()) for m in shuffled] == [1, 100, 15]


def test_n_of_m_gets_there_step_by_step() -> None:
    scores = [np.random.default_rng(0).random((8, 3))]
    pattern = NOfM(1, 4, (0,))
    kept = [int(pattern(scores, lambda s, t=t: s * t)[0].sum()) for t in (0, 0.34, 0.67, 1)]
    assert kept == [24, 18, 12, 6]


def test_inputs_are_found_by_the_kind_of_layer() -> None:
    inputs = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(8, 3, name="conv")(inputs)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.SeparableConv2D(8, 3, name="separable")(x)
    x = keras.layers.Conv2DTranspose(4, 2, name="transposed")(x)
    x = keras.layers.Reshape((9, 4))(x)
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = keras.layers.LSTM(5, name="lstm")(x)
    model = keras.Model(inputs, keras.Sequential([keras.layers.Dense(3, name="logits")])(x))
    found = kernels(model)
    axes = dict(zip(found, input_axes(model, list(found.values())), strict=True))
    by_name = {"/".join(path.split("/")[-2:]): axis for path, axis in axes.items()}
    assert by_name == {
        "conv/kernel": 2,
        "depthwise/kernel": None,
        "separable/depthwise_kernel": None,
        "separable/pointwise_kernel": 2,
        "transposed/kernel": 3,
        "query/kernel": 0,
        "key/kernel": 0,
        "value/kernel": 0,
        "attention_output/kernel": 1,
        "lstm_cell/kernel": 0,
        "lstm_cell/recurrent_kernel": 0,
        "logits/kernel": 0,
    }


@pytest.mark.parametrize("may_return", [True, False])
def test_weights_return_only_where_they_may(may_return: bool) -> None:
    weight = keras.Variable(np.array([0.0, 1, 2, 3, 4], np.float32))
    masks = Masks([weight], keep_zeros=True)
    pattern = Unstructured((((0,), 0.6),))
    masks.draw(pattern, [np.array([9, 1, 2, 3, 4])], in_full)
    masks.draw(pattern, [np.array([9, 4, 3, 2, 1])], in_full, may_return=may_return)
    expected = (
        [False, True, True, False, False] if may_return else [False, False, False, True, True]
    )
    assert masks.values[0].tolist() == expected
    masks.apply()
    np.testing.assert_array_equal(weight.numpy() != 0, expected)
