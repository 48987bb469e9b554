from typing import get_args

import keras
import pytest

from netopt_cli.contracts import Scheme
from netopt_cli.errors import InputError
from netopt_cli.graph.schemes import ARITHMETIC, WEIGHT_BITS, kept_float, weight_bits

layers = keras.layers


@pytest.fixture(scope="module")
def model() -> keras.Model:
    inputs = keras.Input((8,))
    x = layers.Embedding(10, 4, name="embedding")(inputs)
    x = layers.Conv1D(4, 3, name="conv")(x)
    x = layers.DepthwiseConv1D(3, name="depthwise")(x)
    x = layers.Conv1DTranspose(4, 3, name="transposed")(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(layers.Flatten()(x)))


def test_every_scheme_is_described():
    assert set(WEIGHT_BITS) == set(ARITHMETIC) == set(get_args(Scheme))


@pytest.mark.parametrize("scheme", get_args(Scheme))
def test_bits_of_a_scheme(model, scheme):
    bits = weight_bits(model, scheme)
    assert bits["conv/kernel"] == bits["logits/kernel"] == WEIGHT_BITS[scheme]
    assert bits["depthwise/kernel"] == bits["transposed/kernel"] == max(8, WEIGHT_BITS[scheme])
    of_rows = {"float16": 32, "weight_int4": 8, "dynamic_int4": 8}
    assert bits["embedding/embeddings"] == of_rows.get(scheme, WEIGHT_BITS[scheme])


def test_other_bits_where_they_are_possible(model):
    other = {"conv/kernel": 4, "depthwise/kernel": 4, "logits/kernel": 32, "gone/kernel": 4}
    bits = weight_bits(model, "int8", other)
    assert (bits["conv/kernel"], bits["depthwise/kernel"], bits["logits/kernel"]) == (4, 8, 32)
    assert "gone/kernel" not in bits


def test_patterns(model):
    assert kept_float(model, (), "key") == {}
    assert kept_float(model, ("*conv/*", "log*"), "key") == {"conv/kernel": 32, "logits/kernel": 32}
    with pytest.raises(InputError, match=r"key must fit the path of a weight\. Received: 'x'"):
        kept_float(model, ("conv/*", "x"), "key")
    with pytest.raises(InputError, match="key leaves no weight to quantize"):
        kept_float(model, ("*",), "key")
