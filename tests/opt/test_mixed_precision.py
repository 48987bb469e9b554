from dataclasses import replace

import keras
import numpy as np
import pytest
from stage_bench import Bench, apply

from netopt_cli.contracts import Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.kernels import kernels
from netopt_cli.measure.file_weights import read_file_weights
from netopt_cli.measure.measurement import export_network
from netopt_cli.opt.mixed_precision import MixedPrecision
from netopt_cli.opt.quantize import Quantize

SIZES = {"dense_1/kernel": 16 * 24, "dense_2/kernel": 24 * 24, "logits/kernel": 24 * 3}


def preflight(network: Network, **given) -> Preflight:
    return Preflight("mixed_precision", network, is_first=True, build=None, **given)


def bits_of(network: Network) -> dict[str, int]:
    return {path: network.recipe.weight_bits.get(path, 8) for path in kernels(network.model)}


def fraction(bits: dict[str, int]) -> float:
    return sum(SIZES[path] * b for path, b in bits.items()) / (8 * sum(SIZES.values()))


@pytest.mark.parametrize("budget", [0.5, 0.75, 1.0, 1.3])
@pytest.mark.parametrize("scheme", ["int8", "weight_int8"])
def test_the_weights_are_within_the_budget(bench: Bench, budget: float, scheme: str) -> None:
    trained = bench.fit(bench.fresh(), epochs=2)
    stage = MixedPrecision(size_fraction=budget, scheme=scheme)
    bits = bits_of(apply(stage, trained, bench))
    assert set(bits.values()) <= {4, 8, 16, 32}
    assert fraction(bits) <= budget
    # Nothing more would fit: the next wider width of any kernel is over the budget.
    if budget < 1:
        wider = {path: {**bits, path: 2 * b} for path, b in bits.items() if b < 16}
        assert min(map(fraction, wider.values())) > budget - max(SIZES.values()) / 1032


def test_the_bits_are_in_the_file(bench: Bench) -> None:
    trained = bench.fit(bench.fresh(), epochs=2)
    network = apply(MixedPrecision(size_fraction=0.75), trained, bench)
    bits = bits_of(network)
    assert {4, 8} <= set(bits.values())
    _, content = export_network(network, bench.data)
    dtypes = {4: "int4", 8: "int8", 16: "float16", 32: "float32"}
    assert {weight.size: weight.dtype for weight in read_file_weights(content)} == {
        SIZES[path]: dtypes[b] for path, b in bits.items()
    }


def test_few_bits_where_conversion_changes_the_network(bench: Bench) -> None:
    """The first step of an LSTM has a gate that nothing reads; a table that is looked up at
    constant places is no table in the file."""
    inputs = keras.Input(bench.data.shape)
    x = keras.layers.Reshape((4, 4))(inputs)
    x = keras.layers.LSTM(4, unroll=True, name="lstm")(x)
    rows = keras.layers.Embedding(4, 4, name="rows")(keras.ops.zeros_like(x, "int32"))
    x = keras.layers.Dense(6, name="dense")(x + keras.ops.mean(rows, axis=1))
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))
    network = apply(MixedPrecision(size_fraction=0.5), Network(model), bench)
    assert set(network.recipe.weight_bits.values()) == {4}
    _, content = export_network(network, bench.data)
    assert "int4" in {weight.dtype for weight in read_file_weights(content)}


def test_the_sensitive_kernel_keeps_more(bench: Bench) -> None:
    network = bench.fit(bench.fresh(), epochs=3)
    # One large weight in each channel leaves the others of dense_1 nothing at 4 bits.
    kernel = kernels(network.model)["dense_1/kernel"]
    values = kernel.numpy()
    values[0] = 6 * np.abs(values).max()
    kernel.assign(values)
    before = network.model.get_weights()
    network = apply(MixedPrecision(size_fraction=0.75), network, bench)
    bits = bits_of(network)
    assert bits["dense_1/kernel"] == 8 and bits["dense_2/kernel"] == 4
    for old, new in zip(before, network.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not bench.results[1:]


def test_max_drop_takes_the_smallest_that_holds(bench: Bench) -> None:
    trained = bench.fit(bench.fresh(), epochs=5)
    everything = apply(MixedPrecision(max_drop=100), trained, bench)
    assert set(bits_of(everything).values()) == {4}
    bench.notes.clear()
    strict = apply(MixedPrecision(max_drop=0), trained, bench)
    assert fraction(bits_of(strict)) >= fraction(bits_of(everything))
    assert "points of validation accuracy (at most 0 asked for" in bench.notes[0]


def test_the_excluded_stay_float_and_count(bench: Bench) -> None:
    stage = MixedPrecision(size_fraction=1.0, exclude=("logits/*",))
    bits = bits_of(apply(stage, bench.fresh(), bench))
    assert bits["logits/kernel"] == 32 and fraction(bits) <= 1.0


def test_the_plan_predicts_the_bytes_and_refuses_too_few(bench: Bench) -> None:
    planned = MixedPrecision(size_fraction=0.75).plan(preflight(bench.fresh()))
    assert fraction(bits_of(planned)) <= 0.75 and planned.recipe.scheme == "int8"
    message = r"size_fraction must be at least 0\.500 for this network.*Received: 0\.4"
    with pytest.raises(InputError, match=message):
        MixedPrecision(size_fraction=0.4).plan(preflight(bench.fresh()))


def test_order(bench: Bench) -> None:
    network = replace(bench.fresh(), properties=frozenset({"fake quantization"}))
    flight = preflight(network, made_by={"fake quantization": "qat"})
    with pytest.raises(InputError, match=r"cannot come after 'qat'.*layer_bits"):
        MixedPrecision().plan(flight)
    network = apply(Quantize(), bench.fresh(), bench)
    apply(MixedPrecision(), network, bench)
    assert any("replaces the int8 file" in note for note in bench.notes)
