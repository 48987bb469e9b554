import keras
import pytest
import tensorflow as tf

from netopt_cli.export.litert import freeze
from netopt_cli.measure.macs import MacCount, count_macs

L = keras.layers


def macs(*layers, shape) -> MacCount:
    x = inputs = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return count_macs(freeze(keras.Model(inputs, x)).traced.graph)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (L.Dense(10), (20,), 20 * 10),
        (L.Dense(10), (7, 20), 7 * 20 * 10),
        (L.Conv2D(16, 3), (10, 12, 4), 8 * 10 * 16 * 9 * 4),
        (L.Conv2D(16, 3, strides=2, padding="same"), (9, 9, 4), 5 * 5 * 16 * 9 * 4),
        (L.Conv2D(16, 3, dilation_rate=2), (9, 9, 4), 5 * 5 * 16 * 9 * 4),
        (L.Conv2D(16, 3, groups=4, padding="same"), (6, 6, 8), 6 * 6 * 16 * 9 * 2),
        (L.DepthwiseConv2D(3, dilation_rate=2), (9, 8, 4), 5 * 4 * 4 * 9),
        (L.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 5), 4 * 4 * 10 * 9),
        (L.SeparableConv2D(7, 3), (6, 6, 5), 4 * 4 * 5 * 9 + 4 * 4 * 5 * 7),
        (L.Conv2DTranspose(6, 3, strides=2, padding="same"), (5, 5, 4), 5 * 5 * 9 * 4 * 6),
        (L.Conv1D(6, 3), (10, 4), 8 * 6 * 3 * 4),
        (L.Conv3D(6, 2), (4, 4, 4, 3), 27 * 6 * 8 * 3),
        (L.Conv3DTranspose(6, 2), (4, 4, 4, 3), 64 * 6 * 8 * 3),
        (L.EinsumDense("abc,cde->abde", (None, 3, 5)), (7, 4), 7 * 4 * 3 * 5),
        (L.LSTM(6, unroll=True), (7, 5), 7 * (5 * 24 + 6 * 24)),
        (L.LSTM(6), (7, 5), 7 * (5 * 24 + 6 * 24)),
        (L.BatchNormalization(), (5, 5, 3), 0),
        (L.MaxPooling2D(2), (6, 6, 3), 0),
    ],
)
def test_one_layer(layer, shape, expected):
    count = macs(layer, shape=shape)
    assert count.uncounted == []
    assert count.total == expected


def test_cnn():
    layers = []
    for filters in (32, 64, 128):
        layers += [L.Conv2D(filters, 3, padding="same"), L.ReLU(), L.MaxPooling2D(2)]
    layers += [L.Flatten(), L.Dense(128), L.Dense(10)]
    by_hand = (
        28 * 28 * 32 * 9
        + 14 * 14 * 64 * 9 * 32
        + 7 * 7 * 128 * 9 * 64
        + 3 * 3 * 128 * 128
        + 128 * 10
    )
    assert macs(*layers, shape=(28, 28, 1)).total == by_hand == 7_599_872


def test_attention():
    inputs = keras.Input((10, 8))
    outputs = L.MultiHeadAttention(num_heads=2, key_dim=4)(inputs, inputs)
    projections = 4 * 10 * 8 * 8  # query, key, value and output
    products = 2 * (10 * 10 * 4) * 2  # scores, and their values, for each head
    count = count_macs(freeze(keras.Model(inputs, outputs)).traced.graph)
    assert count.total == projections + products


def test_residual_and_behind_a_grouped_convolution():
    inputs = keras.Input((6, 6, 4))
    x = L.Conv2D(4, 3, padding="same", groups=2)(inputs)
    x = L.Add()([inputs, L.Conv2D(4, 1)(x)])
    outputs = L.Dense(3)(L.GlobalAveragePooling2D()(x))
    count = count_macs(freeze(keras.Model(inputs, outputs)).traced.graph)
    assert count.total == 36 * 4 * 9 * 2 + 36 * 4 * 4 + 4 * 3


def test_a_shared_layer_counts_at_each_call():
    shared = L.Dense(8)
    assert macs(shared, shared, shared, shape=(8,)).total == 3 * 64


def test_nested_models():
    inner = keras.Sequential([keras.Input((8,)), L.Dense(5), L.Dense(8)])
    outer = keras.Sequential([keras.Input((8,)), inner, L.Dense(8), inner])
    assert macs(outer, shape=(8,)).total == 2 * 80 + 64


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        ("...ij,...jk->...ik", [(2, 6, 3, 4), (2, 6, 4, 5)], 2 * 6 * 3 * 4 * 5),
        ("i...,i...->...", [(3, 2, 4), (3, 2, 4)], 3 * 2 * 4),
        ("bij->bji", [(2, 3, 4)], 0),
    ],
)
def test_einsum(equation, shapes, expected):
    specs = [tf.TensorSpec(shape) for shape in shapes]
    function = tf.function(lambda *operands: tf.einsum(equation, *operands), autograph=False)
    assert count_macs(function.get_concrete_function(*specs).graph).total == expected


@pytest.mark.parametrize(("transpose_a", "left"), [(False, (3, 4)), (True, (4, 3))])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_transposed_products(transpose_a, left, batch):
    specs = [tf.TensorSpec((*batch, *left)), tf.TensorSpec((*batch, 4, 5))]
    function = tf.function(lambda a, b: tf.matmul(a, b, transpose_a=transpose_a), autograph=False)
    graph = function.get_concrete_function(*specs).graph
    assert count_macs(graph).total == 3 * 4 * 5 * (2 if batch else 1)


def test_an_unknown_shape_is_reported():
    function = tf.function(tf.matmul, autograph=False)
    specs = [tf.TensorSpec((None, 4)), tf.TensorSpec((4, 5))]
    count = count_macs(function.get_concrete_function(*specs).graph)
    assert count.total is None
    assert len(count.uncounted) == 1
    assert "MatMul" in count.uncounted[0]
    assert "(None, 5)" in count.uncounted[0]


@pytest.mark.parametrize("conditional", [False, True])
def test_what_depends_on_the_input_is_reported(conditional):
    def call(x):
        def product(x):
            return tf.matmul(x, tf.ones((4, 4)))

        if conditional:
            return tf.cond(tf.reduce_sum(x) > 0, lambda: product(x), lambda: x)
        limit = tf.cast(tf.reduce_sum(x), tf.int32)
        (x,) = tf.while_loop(
            lambda _: tf.constant(True),
            lambda x: [product(x)],
            [x],
            maximum_iterations=limit,
        )
        return x

    function = tf.function(call, autograph=False)
    count = count_macs(function.get_concrete_function(tf.TensorSpec((1, 4))).graph)
    assert count.total is None
    assert "depends on the input" in count.uncounted[0]
