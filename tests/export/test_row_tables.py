import keras
import numpy as np
import pytest

from netopt_cli.contracts import ExportRecipe, Timing
from netopt_cli.export.litert import freeze, to_litert
from netopt_cli.graph.quantizers import quantize_symmetric
from netopt_cli.measure.file_weights import read_file_weights
from netopt_cli.measure.runtime import LitertRunner

layers = keras.layers
ROWS, WIDTH = 300, 8


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Two look-ups in one table, one in another, and a dense layer."""
    source = keras.Input((6,), dtype="int32")
    shared = layers.Embedding(ROWS, WIDTH, name="shared")
    first, second = shared(source[:, :3]), shared(source[:, 3:5])
    third = layers.Embedding(ROWS, WIDTH, name="other")(source[:, 5:])
    x = layers.Concatenate(axis=1)([first, second, third])
    made = keras.Model(source, layers.Dense(3, name="logits")(layers.Flatten()(x)))
    shared.embeddings.assign(shared.embeddings * np.geomspace(0.01, 100, ROWS)[:, np.newaxis])
    return made


def outputs(content: bytes, x: np.ndarray) -> np.ndarray:
    (found,) = LitertRunner(content, Timing(), 1).logits([x])
    return found


@pytest.mark.parametrize("scheme", ["weight_int8", "dynamic", "weight_int4"])
def test_rows_have_eight_bits_and_a_scale_of_their_own(model, scheme):
    whole = to_litert(freeze(model), ExportRecipe())
    small = to_litert(freeze(model), ExportRecipe(scheme))
    # 4 bytes to 1, but a scale and a zero point a row
    assert len(whole) - len(small) > 2 * ROWS * (3 * WIDTH - 12) - 600
    by_size = [w.dtype for w in read_file_weights(small) if w.size == ROWS * WIDTH]
    assert sorted(by_size) == ["int8", "int8"]
    x = np.random.default_rng(0).integers(0, ROWS, (20, 6)).astype(np.int32)
    if scheme == "weight_int8":
        rounded = keras.models.clone_model(model)
        rounded.set_weights(model.get_weights())
        for name in ("shared", "other"):
            table = rounded.get_layer(name).embeddings
            table.assign(quantize_symmetric(table.numpy(), 8, (0,)))
        kernel = rounded.get_layer("logits").kernel
        kernel.assign(quantize_symmetric(kernel.numpy(), 8, (1,)))
        np.testing.assert_allclose(outputs(small, x), rounded(x), rtol=1e-4, atol=1e-4)


def test_a_table_that_is_to_stay_a_float_does(model):
    recipe = ExportRecipe("weight_int8", weight_bits={"other/embeddings": 32})
    small = to_litert(freeze(model), recipe)
    by_size = [w.dtype for w in read_file_weights(small) if w.size == ROWS * WIDTH]
    assert sorted(by_size) == ["float32", "int8"]
