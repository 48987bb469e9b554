from dataclasses import replace

import keras
import numpy as np
import pytest
from stage_bench import Bench, apply

from netopt_cli.contracts import Network, Preflight, Timing
from netopt_cli.errors import InputError
from netopt_cli.measure.file_weights import read_file_weights
from netopt_cli.measure.measurement import compare, export_network
from netopt_cli.measure.runtime import LitertRunner
from netopt_cli.opt.quantize import Quantize


def preflight(network: Network, **given) -> Preflight:
    return Preflight("quantize", network, is_first=True, build=None, **given)


def recurrent(*, unroll: bool) -> Network:
    inputs = keras.Input((4, 2))
    x = keras.layers.Bidirectional(keras.layers.LSTM(3, unroll=unroll, name="lstm"))(inputs)
    return Network(keras.Model(inputs, keras.layers.Dense(3)(x)))


def test_it_changes_the_recipe_alone(bench: Bench) -> None:
    network = bench.fresh()
    before = network.model.get_weights()
    quantized = apply(Quantize(calibration_samples=5000), network, bench)
    assert quantized.recipe.scheme == "int8"
    assert quantized.recipe.calibration_samples == len(bench.data.train)
    assert quantized.model is network.model and not bench.results
    for old, new in zip(before, network.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("scheme", "dtype"),
    [
        ("int8", "int8"),
        ("int8x4", "int4"),
        ("int16x8", "int8"),
        ("dynamic", "int8"),
        ("dynamic_int4", "int4"),
        ("weight_int8", "int8"),
        ("weight_int4", "int4"),
        ("float16", "float16"),
    ],
)
def test_every_scheme_is_in_the_file_and_runs(bench: Bench, scheme: str, dtype: str) -> None:
    trained = bench.fit(bench.fresh(), epochs=2)
    _, float_file = export_network(trained, bench.data)
    network = apply(Quantize(scheme=scheme), trained, bench)
    _, content = export_network(network, bench.data)
    assert {weight.dtype for weight in read_file_weights(content)} == {dtype}
    assert len(content) < len(float_file)
    parity = compare(network, bench.data, LitertRunner(content, Timing()), scheme)
    assert parity["max_abs_rounded"] <= parity["tolerance"]
    assert abs(parity["file_score"] - parity["keras_score"]) <= 0.1


def test_4_bits_take_half_the_bytes_of_8(bench: Bench) -> None:
    network = bench.fresh()
    weights = 16 * 24 + 24 * 24 + 24 * bench.data.classes
    size = {
        scheme: len(export_network(apply(Quantize(scheme=scheme), network, bench), bench.data)[1])
        for scheme in ("weight_int8", "weight_int4")
    }
    saved = size["weight_int8"] - size["weight_int4"]
    assert saved == pytest.approx(weights / 2, rel=0.3)


@pytest.mark.parametrize("scheme", ["int8", "dynamic", "weight_int4"])
def test_the_excluded_stay_float(bench: Bench, scheme: str) -> None:
    network = apply(Quantize(scheme=scheme, exclude=("logits/*",)), bench.fresh(), bench)
    assert network.recipe.weight_bits == {"logits/kernel": 32}
    _, content = export_network(network, bench.data)
    by_size = {weight.size: weight.dtype for weight in read_file_weights(content)}
    assert by_size[24 * bench.data.classes] == "float32"
    assert by_size[24 * 24] != "float32"
    assert "float32: logits/kernel" in bench.notes[0]


def test_what_is_excluded_must_exist(bench: Bench) -> None:
    with pytest.raises(InputError, match=r"exclude must fit .*'conv\*'; weights: dense_1/kernel"):
        Quantize(exclude=("conv*",)).plan(preflight(bench.fresh()))
    with pytest.raises(InputError, match="leaves no weight to quantize"):
        Quantize(exclude=("*",)).plan(preflight(bench.fresh()))


def test_a_later_stage_replaces_the_file_and_says_so(bench: Bench) -> None:
    network = apply(Quantize(), bench.fresh(), bench)
    network = apply(Quantize(scheme="float16"), network, bench)
    assert network.recipe.scheme == "float16" and network.recipe.calibration_samples == 0
    assert any("replaces the int8 file" in note for note in bench.notes)


def test_the_plan_has_the_recipe(bench: Bench) -> None:
    planned = Quantize(scheme="dynamic", exclude=("logits/*",)).plan(preflight(bench.fresh()))
    assert planned.recipe.scheme == "dynamic"
    assert planned.recipe.weight_bits == {"logits/kernel": 32}


def test_what_is_fake_quantized_is_not_quantized_again(bench: Bench) -> None:
    network = replace(bench.fresh(), properties=frozenset({"fake quantization"}))
    flight = preflight(network, made_by={"fake quantization": "qat"})
    with pytest.raises(InputError, match="'quantize' cannot come after 'qat': it exports int8"):
        Quantize().plan(flight)


@pytest.mark.parametrize("scheme", ["int8", "int8x4", "int16x8"])
def test_integer_activations_refuse_a_loop_before_training(scheme: str) -> None:
    with pytest.raises(InputError, match=r"scheme=int.*lstm runs as a loop.*unroll=True"):
        Quantize(scheme=scheme).plan(preflight(recurrent(unroll=False)))
    assert Quantize(scheme=scheme).plan(preflight(recurrent(unroll=True)))


def test_float_activations_do_not() -> None:
    assert Quantize(scheme="dynamic").plan(preflight(recurrent(unroll=False)))


def test_risks_are_told_for_integer_activations_alone(bench: Bench) -> None:
    apply(Quantize(), bench.fresh(), bench)
    assert any("may quantize badly: dense_1, dense_2: an activation" in n for n in bench.notes)
    bench.notes.clear()
    apply(Quantize(scheme="dynamic"), bench.fresh(), bench)
    assert not any("badly" in note for note in bench.notes)
