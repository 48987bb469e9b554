"""Each kind of layer and operation alone: cut and masked agree, and the units meant are removed."""

# ruff: noqa: PLW0108  A layer made at import would not have the weights of the test's seed.

import keras
import pytest
from keras import layers, ops
from surgery_check import check

IMAGE = (6, 6, 3)
SEQUENCE = (5, 4)


def image(body, channels: int = 8) -> keras.Model:
    """A convolution before and a head behind what is tested."""
    inputs = keras.Input(IMAGE)
    x = layers.Conv2D(channels, 3, padding="same", name="before")(inputs)
    x = body(x)
    if len(x.shape) > 2:
        x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def sequence(body, features: int = 6) -> keras.Model:
    inputs = keras.Input(SEQUENCE)
    x = layers.Dense(features, name="before")(inputs)
    x = body(x)
    if len(x.shape) > 2:
        x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def squeeze_and_excite(x, *, keepdims=False):
    gate = layers.GlobalAveragePooling2D(keepdims=keepdims)(x)
    gate = layers.Dense(4, activation="relu", name="squeeze")(gate)
    gate = layers.Dense(x.shape[-1], activation="sigmoid", name="excite")(gate)
    if not keepdims:
        gate = layers.Reshape((1, 1, x.shape[-1]))(gate)
    return layers.Multiply()([x, gate])


def inception(x):
    branches = [
        layers.Conv2D(3, 1)(x),
        layers.Conv2D(4, 3, padding="same")(layers.Conv2D(2, 1, activation="relu")(x)),
        layers.MaxPooling2D(3, 1, padding="same")(x),
    ]
    return layers.Conv2D(5, 1)(layers.BatchNormalization()(layers.Concatenate()(branches)))


def channel_shuffle(x):
    x = layers.Reshape((6, 6, 2, 4))(x)
    x = layers.Permute((1, 2, 4, 3))(x)
    x = layers.Reshape((6, 6, 8))(x)
    return layers.Conv2D(6, 3, groups=2)(x)


def bottleneck_attention(x):
    """Spatial attention: a mean and a maximum over channels (CBAM)."""
    both = ops.concatenate([ops.mean(x, -1, keepdims=True), ops.max(x, -1, keepdims=True)], -1)
    return x * layers.Conv2D(1, 3, padding="same", activation="sigmoid")(both)


def gated(x):
    value, gate = ops.split(layers.Conv2D(12, 1, name="both")(x), 2, axis=-1)
    return value * ops.sigmoid(gate)


def halves(x):
    """ShuffleNet: one half goes through, the other is convolved."""
    first, second = x[..., :3], x[..., 3:]
    second = layers.DepthwiseConv2D(3, padding="same")(second)
    return ops.concatenate([first, layers.Conv2D(5, 1)(second)], axis=-1)


def self_attention(x):
    heads = layers.MultiHeadAttention(4, 3, name="attention")(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, heads]))
    hidden = layers.Dense(12, activation="gelu")(x)
    return layers.LayerNormalization()(x + layers.Dense(6)(hidden))


def hand_made_attention(x):
    """Heads by reshape and einsum."""
    query, key, value = (layers.Dense(8, name=name)(x) for name in ("q", "k", "v"))
    query, key, value = (ops.reshape(one, (-1, 5, 2, 4)) for one in (query, key, value))
    scores = ops.softmax(ops.einsum("bthd,bshd->bhts", query, key), axis=-1)
    return ops.reshape(ops.einsum("bhts,bshd->bthd", scores, value), (-1, 5, 8))


def matrix_products(x):
    scores = ops.matmul(layers.Dense(5)(x), ops.transpose(layers.Dense(5)(x), (0, 2, 1)))
    return ops.matmul(ops.softmax(scores), layers.Dense(7)(x))


def several_states(x):
    y, h, c = layers.LSTM(5, return_sequences=True, return_state=True)(x)
    return layers.LSTM(5)(y, initial_state=[h, c])


IMAGES = {
    "average": lambda x: layers.Average()([x, layers.Conv2D(8, 1)(x)]),
    "batch norm": lambda x: layers.ReLU()(layers.BatchNormalization()(x)),
    "channel shuffle": channel_shuffle,
    "conv lstm": lambda x: layers.ConvLSTM2D(4, 3)(ops.expand_dims(x, 1)),
    "conv transpose": lambda x: layers.Conv2DTranspose(5, 3, strides=2)(x),
    "cropping": lambda x: layers.Cropping2D(1)(layers.ZeroPadding2D(2)(x)),
    "depthwise": lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(x),
    "dropout": lambda x: layers.SpatialDropout2D(0.5)(layers.Dropout(0.5)(x)),
    "flatten": lambda x: layers.Dense(6, activation="relu")(layers.Flatten()(x)),
    "gated": gated,
    "global max": lambda x: layers.Dense(6)(layers.GlobalMaxPooling2D()(x)),
    "group norm": lambda x: layers.GroupNormalization(4)(x),
    "grouped, few wide": lambda x: layers.Conv2D(6, 3, groups=2)(x),
    "grouped, many narrow": lambda x: layers.Conv2D(8, 3, groups=4)(x),
    "grouped, depthwise": lambda x: layers.Conv2D(16, 3, groups=8)(x),
    "halves": halves,
    "inception": inception,
    "instance norm": lambda x: layers.GroupNormalization(-1)(x),
    "layer norm": lambda x: layers.LayerNormalization()(x),
    "layer norm over all": lambda x: layers.LayerNormalization((1, 2, 3))(x),
    "one group norm": lambda x: layers.GroupNormalization(1)(x),
    "padded channels": lambda x: ops.pad(x, [(0, 0), (0, 0), (0, 0), (1, 2)]),
    "prelu": lambda x: layers.PReLU()(x),
    "prelu, shared": lambda x: layers.PReLU(shared_axes=[1, 2])(x),
    "repeat": lambda x: ops.repeat(x, 2, axis=-1),
    "residual": lambda x: layers.Add()([x, layers.Conv2D(8, 3, padding="same")(x)]),
    "rms norm": lambda x: layers.RMSNormalization()(x),
    "rescaling": lambda x: layers.Rescaling(0.5, 1.0)(x),
    "separable": lambda x: layers.SeparableConv2D(5, 3, depth_multiplier=2)(x),
    "softmax": lambda x: layers.Softmax()(x),
    "spatial attention": bottleneck_attention,
    "squeeze and excite": squeeze_and_excite,
    "squeeze and excite, broadcast": lambda x: squeeze_and_excite(x, keepdims=True),
    "stack": lambda x: ops.sum(ops.stack([x, layers.Conv2D(8, 1)(x)], axis=1), axis=1),
    "unit norm": lambda x: layers.UnitNormalization()(x),
    "upsampling": lambda x: layers.UpSampling2D(2)(x),
}
SEQUENCES = {
    "additive attention": lambda x: layers.AdditiveAttention()([layers.Dense(6)(x), x]),
    "attention": lambda x: layers.Attention(use_scale=True)([layers.Dense(6)(x), x]),
    "bidirectional": lambda x: layers.Bidirectional(layers.GRU(5, return_sequences=True))(x),
    "bidirectional lstm sum": lambda x: layers.Bidirectional(layers.LSTM(5), "sum")(x),
    "conv 1d": lambda x: layers.MaxPooling1D(2)(layers.Conv1D(5, 3, activation="relu")(x)),
    "conv 1d transpose": lambda x: layers.Conv1DTranspose(5, 3)(x),
    "depthwise 1d": lambda x: layers.DepthwiseConv1D(3)(x),
    "dot": lambda x: layers.Dot(2)([layers.Dense(6)(x), x]),
    "einsum dense": lambda x: layers.EinsumDense("...x,xy->...y", 5, bias_axes="y")(x),
    "einsum dense, two axes": lambda x: layers.EinsumDense(
        "btf,fhd->bthd", (5, 3, 4), bias_axes="hd", activation="relu"
    )(x),
    "einsum dense, follows": lambda x: layers.EinsumDense("btf,tf->btf", (5, 6))(x),
    "grouped queries": lambda x: layers.GroupQueryAttention(3, 6, 3)(x, x),
    "gru": lambda x: layers.GRU(5)(layers.GRU(4, return_sequences=True)(x)),
    "gru, reset before": lambda x: layers.GRU(5, reset_after=False)(x),
    "hand-made attention": hand_made_attention,
    "last step": lambda x: layers.LSTM(5, return_sequences=True)(x)[:, -1],
    "lstm": lambda x: layers.LSTM(5)(x),
    "matrix products": matrix_products,
    "mean over time": lambda x: ops.mean(x, axis=1),
    "permute": lambda x: layers.Dense(4)(layers.Permute((2, 1))(x)),
    "repeat vector": lambda x: layers.RepeatVector(3)(layers.Flatten()(x)),
    "self attention": self_attention,
    "separable 1d": lambda x: layers.SeparableConv1D(5, 3)(x),
    "several states": several_states,
    "simple rnn": lambda x: layers.SimpleRNN(5)(x),
    "swap axes": lambda x: ops.swapaxes(ops.swapaxes(x, 1, 2), -1, -2),
    "time distributed": lambda x: layers.TimeDistributed(layers.Dense(5, activation="relu"))(x),
    "time slices": lambda x: ops.concatenate([x[:, ::2], x[:, 1::2]], axis=1),
}
# Left whole by their nature: the channels become a length, an index, or their order matters.
HELD = {"layer norm over all": set(), "permute": {"before"}}


@pytest.mark.parametrize("name", IMAGES)
def test_images(name):
    graph, _ = check(image(IMAGES[name]), ratio=0.4)
    assert not [reason for _, reason in graph.protected if "no rule" in reason]
    assert any("before" in group.layers for group in graph.groups)


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(name):
    graph, _ = check(sequence(SEQUENCES[name]), ratio=0.4)
    assert not [reason for _, reason in graph.protected if "no rule" in reason]
    assert name in HELD or any("before" in group.layers for group in graph.groups)


def test_embedding_of_words():
    inputs = keras.Input((7,), dtype="int32")
    x = layers.Embedding(5, 8, name="words")(inputs)
    x = layers.GlobalAveragePooling1D()(x)
    graph, _ = check(keras.Model(inputs, layers.Dense(2)(x)))
    assert [group.name for group in graph.groups] == ["words"]


def test_unknown_sizes():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.GlobalAveragePooling2D()(squeeze_and_excite(x))
    check(keras.Model(inputs, layers.Dense(3)(x)))


def test_three_dimensions():
    inputs = keras.Input((4, 4, 4, 2))
    x = layers.Conv3D(6, 3, padding="same")(inputs)
    x = layers.Conv3DTranspose(5, 2, strides=2)(layers.MaxPooling3D()(x))
    check(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling3D()(x))))
