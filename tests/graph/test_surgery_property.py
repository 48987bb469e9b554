"""For any network and any choice of units: the cut network computes what the masked one does."""

import keras
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers, ops
from surgery_check import check

from netopt_cli.graph.channels import values_of

EVEN = st.sampled_from([2, 4, 6, 8])
ACTIVATIONS = st.sampled_from(["relu", "relu6", "silu", "sigmoid", "tanh", "gelu", None])


def convolution(draw, x):
    return layers.Conv2D(draw(EVEN), 3, padding="same", activation=draw(ACTIVATIONS))(x)


def normalized(draw, x):
    kind = draw(st.sampled_from(["batch", "layer", "group", "one group", "rms"]))
    if kind == "batch":
        return layers.BatchNormalization()(x)
    if kind == "layer":
        return layers.LayerNormalization()(x)
    if kind == "rms":
        return layers.RMSNormalization()(x)
    return layers.GroupNormalization(1 if kind == "one group" else 2)(x)


def grouped(draw, x):
    groups = draw(st.sampled_from([2, x.shape[-1]]))
    return layers.Conv2D(2 * groups, 3, padding="same", groups=groups)(x)


def depthwise(draw, x):
    multiplier = draw(st.sampled_from([1, 2] if x.shape[-1] < 10 else [1]))
    return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=multiplier)(x)


def separable(draw, x):
    return layers.SeparableConv2D(draw(EVEN), 3, padding="same")(x)


def transposed(draw, x):
    return layers.Conv2DTranspose(draw(EVEN), 3, padding="same")(x)


def residual(draw, x):
    inner = one_block(draw, x)
    if inner.shape[-1] != x.shape[-1]:
        inner = layers.Conv2D(x.shape[-1], 1)(inner)
    merge = draw(st.sampled_from([layers.Add, layers.Multiply, layers.Maximum, layers.Subtract]))
    return merge()([x, inner])


def dense_block(draw, x):
    return layers.Concatenate()([x, one_block(draw, x)])


def squeeze_and_excite(draw, x):
    gate = layers.GlobalAveragePooling2D(keepdims=draw(st.booleans()))(x)
    gate = layers.Dense(draw(EVEN), activation="relu")(gate)
    gate = layers.Dense(x.shape[-1], activation="sigmoid")(gate)
    return layers.Multiply()([x, layers.Reshape((1, 1, x.shape[-1]))(gate)])


def shuffled(draw, x):
    height, width, channels = x.shape[1:]
    x = layers.Reshape((height, width, 2, channels // 2))(x)
    return layers.Reshape((height, width, channels))(layers.Permute((1, 2, 4, 3))(x))


def halves(draw, x):
    half = x.shape[-1] // 2
    if draw(st.booleans()):
        first, second = ops.split(x, 2, axis=-1)
    else:
        first, second = x[..., :half], x[..., half:]
    return ops.concatenate([first, one_block(draw, second)], axis=-1)


def gated_halves(draw, x):
    first, second = ops.split(layers.Conv2D(8, 1)(x), 2, axis=-1)
    return ops.multiply(first, ops.sigmoid(second))


def pooled(draw, x):
    return layers.UpSampling2D()(layers.MaxPooling2D(padding="same")(x))[:, :4, :4]


def nested(draw, x):
    inputs = keras.Input(x.shape[1:])
    return keras.Model(inputs, one_block(draw, inputs))(x)


def shared(draw, x):
    layer = layers.Conv2D(x.shape[-1], 3, padding="same", activation=draw(ACTIVATIONS))
    return layers.Add()([layer(x), layer(layer(x))])


def attended(draw, x):
    height, width, channels = x.shape[1:]
    tokens = layers.Reshape((height * width, channels))(x)
    tokens = layers.Add()([tokens, layers.MultiHeadAttention(2, 3)(tokens, tokens)])
    return layers.Reshape((height, width, channels))(tokens)


def spatial_attention(draw, x):
    mean = ops.mean(x, axis=-1, keepdims=True)
    return x * layers.Conv2D(1, 3, padding="same", activation="sigmoid")(mean)


def unknown(draw, x):
    return layers.Lambda(lambda value: value * 2.0)(x)


BLOCKS = [
    convolution, normalized, grouped, depthwise, separable, transposed, residual, dense_block,
    squeeze_and_excite, shuffled, halves, gated_halves, pooled, nested, shared, attended,
    spatial_attention, unknown,
]  # fmt: skip


def one_block(draw, x):
    # All have even numbers of channels; wide ones are narrowed again.
    if x.shape[-1] > 12:
        x = layers.Conv2D(4, 1)(x)
    return layers.Conv2D(6, 1)(x) if x.shape[-1] % 2 else draw(st.sampled_from(BLOCKS))(draw, x)


def network_of(draw):
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(draw(EVEN), 3, padding="same", name="first")(inputs)
    for _ in range(draw(st.integers(1, 5))):
        x = one_block(draw, x)
    if draw(st.booleans()):
        x = layers.Dense(draw(EVEN), activation="relu")(layers.Flatten()(x))
    elif draw(st.booleans()):
        x = layers.Reshape((16, x.shape[-1]))(x)
        x = draw(st.sampled_from([layers.LSTM, layers.GRU, layers.SimpleRNN]))(draw(EVEN))(x)
    else:
        x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def compare(data, ratio, seed):
    keras.utils.set_random_seed(seed)
    network = network_of(data.draw)
    graph, smaller = check(network, ratio, seed, changes=False)
    values = values_of(network)
    for group in graph.groups:
        for member in group.members:
            assert member.indices.shape[0] == group.size
            assert len(set(member.indices.ravel())) == member.indices.size
        assert group.rows(values).shape[0] == group.size
    assert len({group.name for group in graph.groups}) == len(graph.groups)
    assert (smaller.count_params() < network.count_params()) == bool(graph.groups)
    # What cannot be removed at all is reported.
    cut = {name for group in graph.groups for name in group.layers}
    told = {name for name, _ in graph.protected}
    for layer in network.layers:
        if isinstance(layer, (layers.Conv2D, layers.Dense)):
            assert layer.name in cut | told
        if isinstance(layer, layers.Lambda):
            assert layer.name in told


anything = given(st.data(), st.floats(0.1, 0.9), st.integers(0, 99))


def examples(count: int) -> settings:
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


@examples(12)
@anything
def test_cut_is_masked(data, ratio, seed):
    compare(data, ratio, seed)


@pytest.mark.slow
@examples(300)
@anything
def test_cut_is_masked_often(data, ratio, seed):
    compare(data, ratio, seed)
