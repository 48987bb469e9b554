"""Where exits can be, and that a network cut at them computes what it did in one piece."""

import keras
import numpy as np
import pytest

from netopt_cli.arch import cnn, inception, mlp, resnet
from netopt_cli.errors import ArchError
from netopt_cli.graph.exits import (
    attach_exits,
    ends_of_blocks,
    exit_places,
    segments,
    without_exits,
)

SHAPE = (16, 16, 1)


def head(x: keras.KerasTensor, number: int) -> keras.KerasTensor:
    flat = keras.layers.Flatten(name=f"exit_{number}_flatten")(x)
    return keras.layers.Dense(3, name=f"exit_{number}_logits")(flat)


def samples() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, *SHAPE)).astype(np.float32)


def test_only_layers_that_everything_after_depends_on_can_have_an_exit() -> None:
    places = exit_places(resnet.build(SHAPE, 3))
    assert "block_1_add" in places and "block_1_act" in places
    assert "block_1_conv_1" not in places  # the shortcut goes round it
    assert "input" not in places and "logits" not in places


def test_a_block_ends_with_the_last_layer_before_the_next_kernel() -> None:
    assert ends_of_blocks(cnn.build(SHAPE, 3)) == ["pool_1", "pool_2", "flatten"]
    assert ends_of_blocks(resnet.build(SHAPE, 3)) == [
        "stem_conv_act", "block_1_act", "block_2_act",
    ]  # fmt: skip
    assert ends_of_blocks(mlp.build(SHAPE, 3)) == ["dense_1_act"]


@pytest.mark.parametrize("arch", [cnn, resnet, inception, mlp])
def test_segments_one_after_another_are_the_network(arch) -> None:
    plain = arch.build((32, 32, 1) if arch is inception else SHAPE, 3)
    model = attach_exits(plain, ends_of_blocks(plain), head)
    x = np.random.default_rng(0).normal(size=(4, *plain.input_shape[1:])).astype(np.float32)
    expected = [logits.numpy() for logits in model(x, training=False)]
    np.testing.assert_allclose(expected[-1], plain(x, training=False), atol=1e-5)
    np.testing.assert_allclose(without_exits(model)(x, training=False), expected[-1], atol=1e-5)
    handed = x
    parts = segments(model)
    assert len(parts) == len(expected)
    for part, logits in zip(parts, expected, strict=True):
        outputs = part(handed, training=False)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        np.testing.assert_allclose(outputs[0], logits, atol=1e-4)
        handed = outputs[-1]


def test_no_segment_computes_what_an_earlier_one_has() -> None:
    plain = cnn.build(SHAPE, 3)
    parts = segments(attach_exits(plain, ["pool_2", "pool_1"], head))
    kernels = [{w.path for w in part.weights} for part in parts]
    assert {"conv_1/kernel", "exit_1_logits/kernel"} <= kernels[0]
    assert not kernels[0] & kernels[1] and not kernels[1] & kernels[2]
    assert "logits/kernel" in kernels[2]


def test_attaching_leaves_the_network_alone() -> None:
    plain = cnn.build(SHAPE, 3)
    before = plain(samples()).numpy()
    model = attach_exits(plain, ["pool_1"], head)
    model.get_layer("conv_1").kernel.assign_add(keras.ops.ones((3, 3, 1, 32)))
    np.testing.assert_array_equal(plain(samples()), before)


def test_a_cut_through_two_tensors_is_refused() -> None:
    x = keras.Input(SHAPE)
    left, right = keras.layers.Conv2D(2, 1, name="left")(x), keras.layers.Conv2D(2, 1)(x)
    exit_ = head(left, 1)
    both = keras.layers.Flatten()(keras.layers.Concatenate()([left, right]))
    with pytest.raises(ArchError, match="more than one tensor"):
        segments(keras.Model(x, [exit_, keras.layers.Dense(3)(both)]))
