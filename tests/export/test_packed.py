"""The packed artifact: exact for any bytes, small for what compression made, safe to open."""

import gzip
import lzma
import struct

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from netopt_cli.contracts import ExportRecipe, Timing
from netopt_cli.errors import InputError
from netopt_cli.export.arrays import Array, ArrayCoder
from netopt_cli.export.entropy import (
    ONE,
    Decoder,
    Encoder,
    Mixer,
    log_odds_tables,
)
from netopt_cli.export.litert import freeze, to_litert
from netopt_cli.export.packed import pack, unpack
from netopt_cli.export.static_code import decode, encode
from netopt_cli.export.strip import strip
from netopt_cli.graph.clustering import share, shareable
from netopt_cli.measure.file_weights import read_file_weights, sparsity
from netopt_cli.measure.runtime import LitertRunner

SHAPE = (12, 12, 1)
X = np.random.default_rng(0).standard_normal((8, *SHAPE)).astype(np.float32)


def network() -> keras.Model:
    layers = keras.layers
    inputs = keras.Input(SHAPE, name="input")
    x = layers.Conv2D(8, 3, activation="relu", bias_initializer="normal")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.add([layers.BatchNormalization()(x), layers.MaxPooling2D(1)(x)])
    x = layers.Dense(40, activation="relu", bias_initializer="normal")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(5)(x))


def compressed(zeros: float, values: int) -> keras.Model:
    model = network()
    random = np.random.default_rng(0)
    found = list(shareable(model, biases=True).values())
    for variable in found:
        variable.assign(variable.numpy() * (random.random(variable.shape) >= zeros))
    share(found, values, preserve_zeros=True, initialization="linear", seed=0)
    return model


def exported(model: keras.Model, scheme: str = "float32") -> bytes:
    recipe = ExportRecipe(scheme, len(X))
    return to_litert(freeze(model), recipe, iter(X[:, np.newaxis]))


@pytest.fixture(scope="module", params=["float32", "int8", "pruned", "clustered", "clustered int8"])
def file(request: pytest.FixtureRequest) -> bytes:
    keras.utils.set_random_seed(0)
    model = network()
    if request.param == "pruned":
        weights = [np.where(np.abs(w) < 0.1, 0, w) for w in model.get_weights()]
        model.set_weights(weights)
    elif "clustered" in request.param:
        model = compressed(0.9, 9)
    return exported(model, "int8" if "int8" in request.param else "float32")


def test_an_exported_file_comes_back_bit_for_bit(file: bytes) -> None:
    for content in (file, strip(file)):
        packed = pack(content)
        assert unpack(packed) == content
        assert pack(content) == packed
        assert len(packed) < len(gzip.compress(content, 9))


def test_a_stripped_file_computes_the_same_with_fewer_bytes(file: bytes) -> None:
    stripped = strip(file)
    assert len(stripped) < len(file)
    assert strip(stripped) == stripped
    before, after = (next(LitertRunner(c, Timing()).logits([X])) for c in (file, stripped))
    np.testing.assert_array_equal(before, after)
    shapes = [sorted(w.shape for w in read_file_weights(c)) for c in (file, stripped)]
    assert shapes[0] == shapes[1]
    assert sparsity(read_file_weights(stripped)) == sparsity(read_file_weights(file))


def test_zeros_and_few_values_are_nearly_free() -> None:
    """Against the bits that places and values of random ones have at least."""
    model = compressed(0.97, 9)
    content = strip(exported(model))
    weights = np.concatenate([w.ravel() for w in model.get_weights()])
    nonzero = np.count_nonzero(weights)
    share_nonzero = nonzero / weights.size
    entropy = -weights.size * (
        share_nonzero * np.log2(share_nonzero)
        + (1 - share_nonzero) * np.log2(1 - share_nonzero)
    ) + 3 * nonzero  # fmt: skip
    structure = 350
    assert len(pack(content)) < 1.05 * entropy / 8 + structure
    assert len(pack(content)) < 0.6 * len(gzip.compress(content, 9))


def test_negative_zeros_of_masks_cost_nothing() -> None:
    model = network()
    masked = [w * (np.random.default_rng(0).random(w.shape) < 0.1) for w in model.get_weights()]
    assert any(np.signbit(w[w == 0]).any() for w in masked)
    model.set_weights(masked)
    signed = pack(strip(exported(model)))
    model.set_weights([w + 0.0 for w in masked])
    assert pack(strip(exported(model))) == signed


@pytest.fixture(scope="module")
def small() -> bytes:
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    x = keras.layers.Flatten()(keras.layers.Conv2D(2, 3, strides=5)(inputs))
    return strip(exported(keras.Model(inputs, keras.layers.Dense(3)(x)), "int8"))


@given(st.binary(max_size=300))
def test_any_bytes_come_back(content: bytes) -> None:
    assert unpack(pack(content)) == content
    assert unpack(pack(b"\x1c\0\0\0TFL3" + content)) == b"\x1c\0\0\0TFL3" + content


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_a_damaged_litert_file_comes_back(small: bytes, data: st.DataObject) -> None:
    content = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert unpack(pack(bytes(content))) == bytes(content)


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_a_damaged_packed_file_is_refused(small: bytes, data: st.DataObject) -> None:
    whole = pack(small)
    packed = bytearray(whole)
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    try:
        # The last bits of a stream may be such that nothing depends on them.
        assert unpack(bytes(packed), limit=1 << 16) == small
    except InputError as error:
        assert "packed file" in str(error)
    with pytest.raises(InputError, match="damaged"):
        unpack(whole[: data.draw(st.integers(3, len(whole) - 8))])


def test_what_is_not_packed_is_said() -> None:
    with pytest.raises(InputError, match="Not a packed file"):
        unpack(b"PK\3\4 something else")
    with pytest.raises(InputError, match="version 9; this netopt reads version 2"):
        unpack(b"nP\x09" + bytes(20))


def test_a_small_file_cannot_ask_for_much_memory() -> None:
    header = struct.pack("<2sBIB", b"nP", 2, 0, 1)
    with pytest.raises(InputError, match="declares 1,073,741,824 bytes; the limit is 1,000 bytes"):
        unpack(header + b"\x80\x80\x80\x80\x04" + bytes(20), limit=1000)
    for seed in range(8):
        noise = np.random.default_rng(seed).bytes(60)
        with pytest.raises(InputError, match="damaged"):
            unpack(header + b"\xff\x3f" + b"\x3c" + noise)


DTYPES = {4: np.uint8, 8: np.uint8, 16: np.uint16, 32: np.uint32}


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_arrays_of_any_kind_come_back(data: st.DataObject) -> None:
    arrays = []
    for _ in range(data.draw(st.integers(1, 3))):
        bits = data.draw(st.sampled_from([4, 8, 16, 32]))
        shape = (data.draw(st.integers(1, 6)), data.draw(st.integers(1, 40)))
        few = st.sampled_from([0, 0, 0, 1, 8, 15])
        any_value = st.integers(0, 2**bits - 1)
        elements = data.draw(st.sampled_from([few, any_value, st.just(0)]))
        words = data.draw(npst.arrays(DTYPES[bits], shape[0] * shape[1], elements=elements))
        arrays.append(Array(shape, bits, words))
    check(arrays)


def check(arrays: list[Array]) -> int:
    """The arrays come back; returns the bytes that they took."""
    expected = [np.array(array.words) for array in arrays]
    coder, blocks = Encoder(), []
    ArrayCoder(coder, blocks).code(arrays)
    stream = coder.finish()
    size = len(stream) + sum(map(len, blocks))
    found = [Array(array.shape, array.bits) for array in arrays]
    ArrayCoder(Decoder(stream), blocks).code(found)
    for array, words in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array.words, words)
        assert array.words.dtype == words.dtype
    assert not blocks
    return size


@pytest.mark.parametrize("bits", [8, 32])
def test_long_arrays_take_fixed_frequencies(bits: int) -> None:
    random = np.random.default_rng(0)
    rows, columns = 3, 700_000
    words = np.round(random.normal(0, 2, rows * columns)).astype(np.int8).view(np.uint8)
    if bits == 32:
        words = words.astype(np.uint32) * 0x01010000
    size = check([Array((rows, columns), bits, words)])
    _, counts = np.unique(words, return_counts=True)
    shares = counts / words.size
    assert size < 1.12 * -words.size * np.sum(shares * np.log2(shares)) / 8


@pytest.mark.parametrize("zero", [0, 3])
def test_a_long_table_costs_no_more_than_what_repeats_in_it(zero: int) -> None:
    """Most rows of a table are all zero, whatever integer stands for it; some are alike."""
    random = np.random.default_rng(0)
    kinds = random.integers(0, 256, (20, 8)).astype(np.uint8)
    table = np.full((20_000, 8), zero, np.uint8)
    table[random.random(20_000) < 0.05] = kinds[0]
    some = random.random(20_000) < 0.05
    table[some] = kinds[random.integers(0, 20, some.sum())]
    size = check([Array(table.shape, 8, table.ravel())])
    assert size < 1.1 * len(lzma.compress(table.tobytes()))


def test_rows_and_columns_without_weights_cost_less() -> None:
    random = np.random.default_rng(0)
    even = random.random((100, 200)) < 0.02
    uneven = (random.random((100, 200)) < 0.08) & (np.arange(100)[:, None] % 2 == 0)
    uneven &= np.arange(200) % 2 == 0
    sizes = [
        check([Array((100, 200), 8, each.ravel().astype(np.uint8))]) / np.count_nonzero(each)
        for each in (even, uneven)
    ]
    assert sizes[1] < 0.85 * sizes[0]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=60), st.integers(1, 300))
def test_the_static_code_comes_back(symbols: list[int], repeats: int) -> None:
    array = np.array(symbols * repeats, np.uint8)
    np.testing.assert_array_equal(decode(encode(array), len(array)), array)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, ONE - 1)), max_size=200))
def test_bits_come_back_at_any_probability(bits: list[tuple[int, int]]) -> None:
    encoder = Encoder()
    for bit, probability in bits:
        encoder.code(bit, probability)
    stream = encoder.finish()
    decoder = Decoder(stream)
    assert [decoder.code(0, probability) for _, probability in bits] == [bit for bit, _ in bits]
    information = sum(-np.log2((p if bit else ONE - p) / ONE) for bit, p in bits)
    assert len(stream) <= information / 8 * 1.01 + 2


@given(st.lists(st.integers(-(2**62), 2**62), max_size=40), st.lists(st.integers(0, 31)))
def test_numbers_and_symbols_come_back(numbers: list[int], symbols: list[int]) -> None:
    def code(coder: Encoder | Decoder, numbers: list[int], symbols: list[int]) -> tuple:
        mixer = Mixer(coder, 2, learning_rate=0.01)
        return (
            [mixer.number(number, ("a", "b")) for number in numbers],
            [mixer.tree(symbol, 5, ("c", symbol_index % 2))
             for symbol_index, symbol in enumerate(symbols)],
        )  # fmt: skip

    encoder = Encoder()
    assert code(encoder, numbers, symbols) == (numbers, symbols)
    decoded = code(Decoder(encoder.finish()), [0] * len(numbers), [0] * len(symbols))
    assert decoded == (numbers, symbols)


def test_the_table_of_probabilities_does_not_hang_on_the_last_bit_of_exp() -> None:
    """No entry is so near to a half that another `exp` could round it the other way."""
    _, squash = log_odds_tables()
    steps = np.arange(len(squash)) - len(squash) // 2
    exact = ONE / (1 + np.exp(-steps.astype(np.longdouble) / 256))
    assert np.abs(exact % 1 - 0.5).min() > 1e-6
    np.testing.assert_array_equal(squash, np.clip(np.round(exact), 1, ONE - 1))
