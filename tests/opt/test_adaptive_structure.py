"""Networks whose depth, width or kernels adapt: what they compute, and what their files hold."""

import csv
from pathlib import Path

import keras
import numpy as np
import pytest
from command_line import CommandLine
from keras import layers
from stage_bench import Bench, apply, build

from netopt_cli.contracts import Network, Stage, Timing
from netopt_cli.errors import InputError
from netopt_cli.graph.conditional_convolution import ConditionalConv2D
from netopt_cli.graph.residual import residual_blocks
from netopt_cli.graph.skippable import SkippableBlock, with_fixed_gates
from netopt_cli.graph.stochastic_depth import DropBranch, with_drops
from netopt_cli.measure.macs import count_macs
from netopt_cli.measure.measurement import export_network
from netopt_cli.measure.runtime import LitertRunner
from netopt_cli.opt.conditional_convolution import ConditionalConvolution
from netopt_cli.opt.dynamic_depth import DynamicDepth
from netopt_cli.opt.prune import Prune
from netopt_cli.opt.quantize import Quantize
from netopt_cli.opt.slimmable import Slimmable
from netopt_cli.opt.stochastic_depth import StochasticDepth
from netopt_cli.planning import plan


def residual(shape: tuple[int, ...], classes: int) -> keras.Model:
    """Two blocks with the identity as the shortcut and one that changes the channels."""
    inputs = keras.Input(shape, name="input")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    for i in (1, 2):
        branch = layers.Conv2D(8, 3, padding="same", name=f"block_{i}_conv")(x)
        branch = layers.BatchNormalization(momentum=0.7, name=f"block_{i}_bn")(branch)
        x = layers.ReLU(name=f"block_{i}_act")(layers.Add(name=f"block_{i}_add")([x, branch]))
    wider = layers.Conv2D(12, 1, name="block_3_shortcut")(x)
    branch = layers.Conv2D(12, 3, padding="same", name="block_3_conv")(x)
    x = layers.Add(name="block_3_add")([branch, wider])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="residual")


def images(bench: Bench, count: int = 40) -> np.ndarray:
    return next(bench.data.normalized_batches(bench.data.validation, count))[0]


def file_logits(network: Network, bench: Bench, x: np.ndarray) -> tuple[np.ndarray, int | None]:
    graph, content = export_network(network, bench.data)
    runner = LitertRunner(content, Timing())
    return np.concatenate(list(runner.logits([x]))), count_macs(graph.traced.graph).total


def reloaded(model: keras.Model, folder: Path) -> keras.Model:
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras", compile=False)


def test_blocks_are_found_where_the_shortcut_is_the_identity(bench: Bench) -> None:
    found = residual_blocks(bench.build(residual).model)
    assert [block.add.name for block in found] == ["block_1_add", "block_2_add"]
    assert {layer.name for layer in found[0].layers} == {"block_1_conv", "block_1_bn"}
    assert found[0].macs == 4 * 4 * 9 * 8 * 8


def test_a_branch_that_something_else_reads_cannot_be_left_out() -> None:
    inputs = keras.Input((4, 4, 8))
    branch = layers.Conv2D(8, 3, padding="same")(inputs)
    x = layers.Add()([inputs, branch])
    model = keras.Model(inputs, layers.Concatenate()([x, branch]))
    assert residual_blocks(model) == []


def test_dropped_branches_are_zero_or_scaled_and_gone_in_the_end(bench: Bench) -> None:
    model = bench.build(residual).model
    dropping = with_drops(model, residual_blocks(model), [1.0, 0.25])
    drop = dropping.get_layer("block_2_add_drop")
    ones = np.ones((400, 2, 2, 1), np.float32)
    kept = drop(ones, training=True).numpy()[:, 0, 0, 0]
    assert set(np.unique(kept)) == {0.0, 4.0}
    assert 0.15 < np.mean(kept > 0) < 0.35
    x = images(bench)
    np.testing.assert_allclose(dropping(x), model(x), atol=1e-5)


def test_stochastic_depth_trains_and_leaves_the_whole_network(bench: Bench) -> None:
    network = bench.build(residual)
    stage = StochasticDepth(survival=0.5, start="current", epochs=3)
    result = apply(stage, network, bench)
    assert not any(isinstance(layer, DropBranch) for layer in result.model.layers)
    assert [v.path for v in result.model.weights] == [v.path for v in network.model.weights]
    assert bench.evaluate(result.model) > 0.8
    assert "0.50" in bench.notes[-1]


@pytest.fixture
def gated(bench: Bench) -> Network:
    return apply(DynamicDepth(target=0.5, epochs=1, penalty=5.0), bench.build(residual), bench)


def test_the_file_skips_what_its_gate_closes(bench: Bench, tmp_path: Path) -> None:
    stage = DynamicDepth(epochs=1)
    model = plan(bench.build(residual), {"dynamic_depth": stage}, bench.build, bench.data)[
        "dynamic_depth"
    ].model
    x = images(bench)
    block = next(layer for layer in model.layers if isinstance(layer, SkippableBlock))
    # A gate that depends on the sample: half of them open it.
    inner = keras.Model(model.inputs, block.output[1])
    block.squeeze.set_weights([np.ones((8, 16)) / 16, np.zeros(16)])
    block.decide.set_weights([np.ones((16, 1)), np.zeros(1)])
    stem = keras.Model(model.inputs, model.get_layer("stem").output)
    means = stem(x).numpy().mean((1, 2)).sum(-1)
    block.decide.set_weights([np.ones((16, 1)), -np.full(1, np.median(means))])
    opened = inner.predict(x, verbose=0)
    assert 0.2 < opened.mean() < 0.8
    actual, macs = file_logits(Network(model), bench, x)
    np.testing.assert_allclose(actual, model(x), atol=1e-4)
    assert macs is None, "which blocks run depends on the sample"
    np.testing.assert_allclose(reloaded(model, tmp_path)(x), model(x), atol=1e-5)


@pytest.mark.slow
def test_gates_are_trained_to_the_target(bench: Bench) -> None:
    stage = DynamicDepth(target=0.5, penalty=20.0, epochs=10, learning_rate=0.02)
    result = apply(stage, bench.build(residual), bench)
    share = float(bench.notes[-1].split("%")[0].split()[-1]) / 100
    assert 0.3 <= share <= 0.7
    assert bench.evaluate(result.model) > 0.8
    always, never = (result.variants[name] for name in ("all blocks", "no block"))
    x = images(bench)
    whole, its_macs = file_logits(Network(always), bench, x)
    np.testing.assert_allclose(whole, always(x), atol=1e-4)
    _, least = file_logits(Network(never), bench, x)
    assert its_macs - least >= sum(
        block.macs for block in residual_blocks(bench.build(residual).model)
    )


def test_a_fixed_gate_needs_no_decision(bench: Bench, gated: Network) -> None:
    model = with_fixed_gates(gated.model, {"block_1_add": "closed", "block_2_add": "open"})
    x = images(bench)
    actual, macs = file_logits(Network(model), bench, x)
    np.testing.assert_allclose(actual, model(x), atol=1e-4)
    assert macs is not None
    plan(Network(model), {"quantize": Quantize()}, bench.build, bench.data)


@pytest.fixture
def convolutional(bench: Bench) -> Network:
    def arch(shape: tuple[int, ...], classes: int) -> keras.Model:
        inputs = keras.Input(shape, name="input")
        x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv_1")(inputs)
        x = layers.Conv2D(10, 3, strides=2, padding="same", name="conv_2")(x)
        x = layers.ReLU(name="act")(layers.BatchNormalization(momentum=0.7, name="bn")(x))
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="convolutional")

    return bench.build(arch)


@pytest.mark.parametrize("mix", ["kernels", "outputs"])
def test_a_conditional_convolution_starts_as_the_plain_one_and_exports(
    mix: str, bench: Bench, convolutional: Network, tmp_path: Path
) -> None:
    stage = ConditionalConvolution(experts=3, mix=mix, epochs=2)
    x = images(bench)
    planned = plan(convolutional, {"conditional": stage}, bench.build, bench.data)[
        "conditional"
    ].model
    assert np.abs(planned(x) - convolutional.model(x)).max() < 0.2
    trained = apply(stage, convolutional, bench).model
    layer = trained.get_layer("conv_2")
    assert isinstance(layer, ConditionalConv2D)
    assert layer.count_params() == 3 * 9 * 8 * 10 + 8 * 3 + 3 + 10
    assert np.abs(layer.router.numpy()).max() > 0, "routes are learned"
    actual, macs = file_logits(Network(trained), bench, x)
    np.testing.assert_allclose(actual, trained(x), atol=1e-4)
    plain = file_logits(convolutional, bench, x)[1]
    once, mixing, routing = 2 * 2 * 9 * 8 * 10, 3 * 9 * 8 * 10, 8 * 3
    extra = mixing if mix == "kernels" else 2 * once
    assert macs == plain + extra + routing
    np.testing.assert_allclose(reloaded(trained, tmp_path)(x), trained(x), atol=1e-5)


def test_samples_get_kernels_of_their_own(bench: Bench) -> None:
    layer = ConditionalConv2D(filters=2, kernel_size=(1, 1), experts=2, use_bias=False)
    layer.build((None, 1, 1, 1))
    layer.router.assign([[10.0, -10.0]])
    for expert, value in zip(layer.kernels, (1.0, -3.0), strict=True):
        expert.assign(np.full((1, 1, 1, 2), value))
    x = np.array([2.0, -2.0], np.float32).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(layer(x).numpy()[:, 0, 0, 0], [2.0, 6.0], atol=1e-4)


def test_each_width_computes_by_slices_of_the_same_weights(
    bench: Bench, convolutional: Network
) -> None:
    network = apply(Slimmable(widths=(0.5,), epochs=6), convolutional, bench)
    (narrow,) = network.variants.values()
    wide_kernel = network.model.get_layer("conv_2").kernel.numpy()
    np.testing.assert_array_equal(
        narrow.get_layer("conv_2").kernel.numpy(), wide_kernel[:, :, :4, :5]
    )
    wide_norm, own_norm = (m.get_layer("bn").get_weights() for m in (network.model, narrow))
    assert len(own_norm[0]) == 5
    assert not np.allclose(wide_norm[2][:5], own_norm[2]), "statistics of their own"
    assert bench.evaluate(network.model) > 0.85
    assert bench.evaluate(narrow) > 0.85
    untrained = apply(Slimmable(widths=(0.5,), epochs=1), bench.build(build), bench)
    assert list(untrained.variants) == ["width 0.5"]


@pytest.mark.parametrize(
    ("arch", "stages", "words"),
    [
        (build, {"s": StochasticDepth()}, ["identity", "arch=resnet"]),
        (build, {"d": DynamicDepth()}, ["identity", "arch=resnet"]),
        (build, {"c": ConditionalConvolution()}, ["Conv2D"]),
        (residual, {"c": ConditionalConvolution(at=("stm",))}, [".at", "stem"]),
        (residual, {"d": DynamicDepth(), "quantize": Quantize()}, ["int8", "skipped"]),
        (residual, {"c": ConditionalConvolution(), "quantize": Quantize()}, ["mix=outputs"]),
        (residual, {"p": Prune(epochs=1), "c": ConditionalConvolution()}, ["zeros"]),
        (residual, {"w": Slimmable(widths=())}, ["widths"]),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    arch: object, stages: dict[str, Stage], words: list[str], bench: Bench
) -> None:
    with pytest.raises(InputError) as error:
        plan(bench.build(arch), stages, bench.build, bench.data)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.slow
def test_every_width_has_a_row_in_int8_too(netopt: CommandLine, tmp_path: Path) -> None:
    done = netopt(
        "train", "arch=mlp", "arch.hidden=[16,16]", "train.epochs=1", "data.train_limit=200",
        "target.timed_runs=30", "target.warmup_runs=2", "hydra.run.dir=run", "control=false",
        "opt=[slimmable,quantize]", "opt.slimmable.widths=[0.5]", "opt.slimmable.epochs=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert [row["stage"] for row in rows] == [
        "baseline", "slimmable, width 0.5", "slimmable", "quantize, width 0.5", "quantize",
    ]  # fmt: skip
    bytes_of = {row["stage"]: int(row["size_bytes"]) for row in rows}
    assert bytes_of["slimmable, width 0.5"] < bytes_of["slimmable"]
    assert bytes_of["quantize, width 0.5"] < bytes_of["slimmable, width 0.5"]
