"""Adaptive computation time: halting by hand-computed numbers, its price, its file."""

from pathlib import Path

import keras
import numpy as np
import pytest
from stage_bench import Bench, apply, build

from netopt_cli.arch import rnn
from netopt_cli.contracts import Network, Timing
from netopt_cli.errors import ArchError, InputError
from netopt_cli.graph.adaptive_time import AdaptiveRNN
from netopt_cli.measure.measurement import export_network
from netopt_cli.measure.runtime import LitertRunner
from netopt_cli.opt.adaptive_time import AdaptiveTime
from netopt_cli.opt.quantize import Quantize
from netopt_cli.planning import plan


def small(shape: tuple[int, ...], classes: int) -> keras.Model:
    return rnn.build(shape, classes, cell="gru", units=(8,))


def test_halting_weighs_the_steps() -> None:
    cell = keras.layers.SimpleRNNCell(1, activation="linear", use_bias=False)
    layer = AdaptiveRNN(cell, max_steps=5)
    x = np.array([[[1.0]], [[1.0]]], np.float32)
    layer(x)
    cell.set_weights([np.ones((1, 1)), np.ones((1, 1))])
    layer.later.assign([1.0])
    layer.halt_bias.assign([np.log(0.6 / 0.4)])  # halts with 0.6 at each step
    y, cost, steps = layer(x)
    # States 1, then 1 + (1 + 1) = 3; shares 0.6 and 0.4.
    np.testing.assert_allclose(y, [[0.6 * 1 + 0.4 * 3]] * 2, rtol=1e-5)
    np.testing.assert_allclose(steps, [2.0, 2.0])
    np.testing.assert_allclose(cost, [2.4, 2.4], rtol=1e-5)


@pytest.mark.parametrize(
    ("cell", "scale", "bias"), [("simple", 3, 1.0), ("lstm", 20, -0.5), ("gru", 20, -0.5)]
)
def test_the_loop_of_the_file_computes_what_the_network_does(
    cell: str, scale: float, bias: float, bench: Bench, tmp_path: Path
) -> None:
    network = bench.build(lambda shape, classes: rnn.build(shape, classes, cell=cell, units=(6,)))
    model = plan(network, {"act": AdaptiveTime()}, bench.build, bench.data)["act"].model
    layer = model.get_layer(f"{cell}_1")
    layer.halt.assign(np.random.default_rng(0).normal(size=layer.halt.shape) * scale)
    layer.halt_bias.assign([bias])
    layer.later.assign(np.random.default_rng(1).normal(size=layer.later.shape))
    x = next(bench.data.normalized_batches(bench.data.validation, 20))[0]
    steps = keras.Model(model.inputs, layer.output[2])(x).numpy()
    assert steps.std() > 0.05, "samples differ in their steps"
    _, content = export_network(Network(model), bench.data)
    actual = np.concatenate(list(LitertRunner(content, Timing()).logits([x])))
    np.testing.assert_allclose(actual, model(x), atol=1e-4)
    model.save(tmp_path / "act.keras")
    loaded = keras.saving.load_model(tmp_path / "act.keras", compile=False)
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-5)


@pytest.mark.slow
def test_a_dearer_step_is_taken_less_often(bench: Bench) -> None:
    def steps(cost: float) -> float:
        stage = AdaptiveTime(ponder_cost=cost, epochs=10, learning_rate=0.05)
        result = apply(stage, bench.build(small), bench)
        assert bench.evaluate(result.model) > 0.8 or cost
        return float(bench.notes[-1].split(": ")[1].split()[0])

    assert steps(5.0) < steps(0.0) - 0.3
    assert all(result.kept_epoch == 10 for result in bench.results)


@pytest.mark.slow
def test_all_steps_laid_out_can_be_int8_and_a_loop_cannot(bench: Bench) -> None:
    network = bench.build(small)
    with pytest.raises(InputError, match="loop=false"):
        plan(network, {"act": AdaptiveTime(), "quantize": Quantize()}, bench.build, bench.data)
    planned = plan(
        network, {"act": AdaptiveTime(loop=False), "quantize": Quantize()}, bench.build, bench.data
    )
    x = next(bench.data.normalized_batches(bench.data.validation, 20))[0]
    _, content = export_network(planned["quantize"], bench.data)
    actual = np.concatenate(list(LitertRunner(content, Timing()).logits([x])))
    assert np.abs(actual - planned["quantize"].model(x)).mean() < 0.1


def test_a_network_without_recurrence_and_a_vector_are_refused(bench: Bench) -> None:
    with pytest.raises(InputError, match="arch=rnn"):
        plan(bench.build(build), {"act": AdaptiveTime()}, bench.build, bench.data)
    with pytest.raises(ArchError, match="arch=mlp"):
        rnn.build((5,), 3)
    with pytest.raises(ArchError, match="at least one"):
        rnn.build((5, 2), 3, units=())


def test_two_layers_over_rows_are_a_network() -> None:
    model = rnn.build((28, 28, 1), 10)
    assert model.count_params() == 24_458
    assert rnn.build((7, 3), 4, units=(5, 6)).output_shape == (None, 4)
