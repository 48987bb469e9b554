import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from netopt_cli.contracts import ExportRecipe
from netopt_cli.export.litert import freeze, to_litert
from netopt_cli.export.ranges import Histogram, activation_ranges

values = arrays(np.float64, st.integers(20, 200), elements=st.floats(-50, 50, width=32)).filter(
    lambda found: np.ptp(found) > 1e-3
)


@given(values, st.sampled_from([50.1, 90.0, 99.0, 100.0]))
def test_percentiles_are_those_of_the_values_to_a_bin(found, percentile):
    histogram = Histogram(found.min(), found.max())
    histogram.add(found)
    low, high = histogram.percentiles(percentile)
    bin_width = np.ptp(found) / 2048
    outside = (100 - percentile) / 100 * len(found)
    assert found.min() <= low <= high <= found.max()
    assert np.count_nonzero(found < low - bin_width) <= outside + 1e-9
    assert np.count_nonzero(found > high + bin_width) <= outside + 1e-9


@given(values, st.integers(2, 8))
def test_the_least_error_is_no_more_than_that_of_the_whole_range(found, bits):
    histogram = Histogram(found.min(), found.max())
    histogram.add(found)

    def error(low, high):
        scale = (high - low) / (2**bits - 1)
        rounded = np.rint(np.clip(found, low, high) / scale) * scale
        return np.mean((found - rounded) ** 2)

    low, high = histogram.least_error(bits)
    whole = error(min(found.min(), 0.0), max(found.max(), 0.0))
    bin_width = np.ptp(found) / 2048
    # To the width of a bin, since the histogram knows no more of a value.
    assert np.sqrt(error(low, high)) <= np.sqrt(whole) + bin_width


@pytest.fixture(scope="module")
def exported() -> tuple[keras.Model, bytes, list[np.ndarray]]:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,), name="input")
    hidden = keras.layers.Dense(8, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(hidden))
    samples = np.random.default_rng(0).standard_normal((400, 1, 4)).astype(np.float32)
    return model, to_litert(freeze(model), ExportRecipe()), list(samples)


def test_all_values_count_by_default(exported):
    model, content, samples = exported
    ranges = activation_ranges(content, samples, ExportRecipe("int8", len(samples)))
    x = np.concatenate(samples)
    hidden = keras.Model(model.inputs, model.get_layer("hidden").output)(x).numpy()
    logits = model(x).numpy()
    expected = [(each.min(), each.max()) for each in (x, hidden, logits)]
    np.testing.assert_allclose(sorted(ranges.values()), sorted(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("calibration", "bits"), [("percentile", 8), ("mse", 2)], ids=["percentile", "mse"]
)
def test_only_what_is_inside_is_cut(exported, calibration, bits):
    _, content, samples = exported
    recipe = ExportRecipe("int8", 401, calibration=calibration, percentile=99.0)
    samples = [*samples, np.full((1, 4), 6.0, np.float32)]
    whole = activation_ranges(content, samples, ExportRecipe("int8", 401))
    cut = activation_ranges(content, samples, recipe, bits)
    (inside,) = (name for name in whole if cut[name] != whole[name])
    assert whole[inside][0] == 0 and 0 < cut[inside][1] < 0.8 * whole[inside][1]
