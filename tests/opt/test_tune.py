"""Tuning a trained network with few of its parameters."""

import csv
import math
from pathlib import Path

import keras
import numpy as np
import pytest
from command_line import CommandLine
from keras import layers
from stage_bench import Bench, apply

from netopt_cli.contracts import Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.low_rank_update import LowRankUpdate, matrix_sides
from netopt_cli.opt.prune import Prune
from netopt_cli.opt.tune import Tune
from netopt_cli.planning import plan


def convolutional(shape: tuple[int, ...], classes: int) -> keras.Model:
    inputs = keras.Input(shape, name="input")
    x = layers.Conv2D(12, 3, padding="same", name="conv_1")(inputs)
    x = layers.Activation("relu", name="conv_1_act")(layers.BatchNormalization(name="bn")(x))
    x = layers.Conv2D(16, 3, padding="same", name="conv_2", activation="relu")(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="small")


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {v.path: v.numpy() for v in model.trainable_variables}


def tuned(bench: Bench, **options: object) -> tuple[dict, dict, Network]:
    network = bench.build(convolutional)
    before = weights(network.model)
    network = apply(Tune(epochs=2, **options), network, bench)
    return before, weights(network.model), network


def changed(before: dict, after: dict) -> set[str]:
    return {path for path in before if not np.array_equal(before[path], after[path])}


def test_only_what_the_method_names_is_trained(bench: Bench) -> None:
    head = {"logits/kernel", "logits/bias"}
    assert changed(*tuned(bench, method="freeze")[:2]) == head
    biases = {"conv_1/bias", "conv_2/bias", "bn/beta"}
    assert changed(*tuned(bench, method="bitfit")[:2]) <= head | biases
    assert changed(*tuned(bench, method="bitfit")[:2]) >= head | {"conv_2/bias", "bn/beta"}
    assert changed(*tuned(bench, method="lora", rank=1)[:2]) == head | {
        "conv_1/kernel", "conv_2/kernel",
    }  # fmt: skip
    only = tuned(bench, method="freeze", frozen=("conv_*", "bn/*"), trained=("conv_2/bias",))
    assert changed(*only[:2]) == head | {"conv_2/bias"}
    assert len(changed(*tuned(bench, method="full")[:2])) >= 7


def test_what_was_frozen_can_be_trained_by_later_stages(bench: Bench) -> None:
    _, after, network = tuned(bench, method="freeze", adapt_batch_norm=False)
    apply(Tune(method="full", epochs=1), network, bench)
    assert "conv_2/kernel" in changed(after, weights(network.model))
    assert all(layer.trainable for layer in network.model.layers)


def test_an_update_has_the_rank_and_is_the_kernel_itself(bench: Bench) -> None:
    before, after, network = tuned(bench, method="lora", rank=2)
    delta = (after["conv_2/kernel"] - before["conv_2/kernel"]).reshape(-1, 16)
    assert np.linalg.matrix_rank(delta, tol=1e-5) == 2
    assert network.model.count_params() == bench.build(convolutional).model.count_params()
    trained = 2 * (9 + 12) + 2 * (9 * 12 + 16) + 16 * 16 * 3 + 3
    assert bench.results[-1].trainable_params == trained


def test_the_merged_kernel_computes_what_the_two_paths_compute() -> None:
    layer = layers.Dense(20, use_bias=False)
    layer.build((None, 30))
    base = layer.kernel.numpy()
    update = LowRankUpdate(layer.kernel, rank=3, alpha=6.0, seed=0)
    np.testing.assert_array_equal(update.merged(), base)
    a, b = update.factors
    b.assign(np.random.default_rng(0).normal(size=b.shape))
    x = np.random.default_rng(1).normal(size=(5, 30)).astype(np.float32)
    expected = x @ base + 6.0 / 3 * (x @ a.numpy()) @ b.numpy()
    np.testing.assert_allclose(x @ update.merged().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_kernels_are_split_where_the_factors_are_smallest() -> None:
    assert matrix_sides((3, 3, 32, 64)) == (288, 64)
    assert matrix_sides((64, 4, 16)) == (64, 64)
    assert matrix_sides((30, 20)) == (30, 20)


def test_frozen_statistics_stay_when_asked_for(bench: Bench) -> None:
    def mean(**options: object) -> np.ndarray:
        network = bench.build(convolutional)
        network = apply(Tune(method="freeze", epochs=1, **options), network, bench)
        return network.model.get_layer("bn").moving_mean.numpy()

    assert not mean(adapt_batch_norm=False).any()
    assert mean(adapt_batch_norm=True).any()


def test_adapters_leave_the_layers_and_start_as_nothing(bench: Bench) -> None:
    stage = Tune(method="adapters", bottleneck=2)
    network = bench.build(convolutional)
    planned = plan(network, {"tune": stage}, bench.build, bench.data)["tune"].model
    x = np.random.default_rng(0).normal(size=(4, 4, 4, 1)).astype(np.float32)
    np.testing.assert_allclose(planned(x), network.model(x), atol=1e-6)
    before, after, result = tuned(bench, method="adapters", bottleneck=2)
    assert changed(before, after) == {"logits/kernel", "logits/bias"}
    new = set(after) - set(before)
    assert "conv_1_adapter_up/kernel" in new and "conv_2_adapter_down/kernel" in new
    assert np.abs(after["conv_1_adapter_up/kernel"]).max() > 0
    # Behind the normalization and the activation of its host.
    source = result.model.get_layer("conv_1_adapter_down").input._keras_history.operation
    assert source.name == "conv_1_act"
    size = math.prod(after["conv_1_adapter_down/kernel"].shape)
    assert size == 12 * 2


def test_a_few_parameters_learn_a_shifted_task(bench: Bench) -> None:
    network = bench.fit(bench.build(convolutional), epochs=4)
    last = network.model.get_layer("logits")
    last.set_weights([np.roll(value, 1, axis=-1) for value in last.get_weights()])
    accuracy = bench.evaluate(network.model)
    tuned_network = apply(Tune(rank=1, epochs=8), network, bench)
    assert bench.evaluate(tuned_network.model) > max(0.9, accuracy + 0.3)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ({"tune": Tune(frozen=("convv_1/*",))}, ["opt.tune.frozen", "conv_1"]),
        ({"tune": Tune(trained=("lgits/*",))}, ["opt.tune.trained", "logits"]),
        ({"tune": Tune(rank=500)}, ["rank 500", "method=full"]),
        ({"tune": Tune(method="freeze", trained=())}, ["would train nothing"]),
        ({"prune": Prune(sparsity=0.5), "tune": Tune()}, ["zeros", "'tune'", "bitfit"]),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    stages: dict, words: list[str], bench: Bench
) -> None:
    with pytest.raises(InputError) as error:
        plan(bench.build(convolutional), stages, bench.build, bench.data)
    assert all(word in str(error.value) for word in words), error.value


def test_zeros_survive_the_training_of_biases(bench: Bench) -> None:
    stages = {"prune": Prune(sparsity=0.5, epochs=1), "tune": Tune(method="bitfit", epochs=1)}
    network = bench.build(convolutional)
    for stage in stages.values():
        network = apply(stage, network, bench)
    kernel = network.model.get_layer("conv_2").kernel.numpy()
    assert 0.3 < np.mean(kernel == 0) < 0.8
    assert stages["tune"].plan(Preflight("tune", network, False, bench.build)) is network


@pytest.mark.slow
def test_a_loaded_network_is_tuned_from_the_command_line(
    netopt: CommandLine, tmp_path: Path, bench: Bench
) -> None:
    path = tmp_path / "own.keras"
    inputs = keras.Input((8, 8, 1))
    x = layers.Dense(32, activation="relu", name="hidden")(layers.Flatten()(inputs))
    keras.Model(inputs, layers.Dense(10, name="logits")(x)).save(path)
    words = [
        "train", "arch=keras_model", f"arch.path={path}", "train.epochs=0", "data.train_limit=200",
        "target.timed_runs=30", "target.warmup_runs=2", "hydra.run.dir=run",
    ]  # fmt: skip
    done = netopt(*words, "opt=[tune,quantize]", "opt.tune.epochs=1")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    trained = {(row["stage"], row["role"]): int(row["trainable_params"]) for row in rows}
    assert trained[("baseline", "baseline")] == 0
    assert trained[("tune", "control")] == 65 * 32 + 33 * 10
    assert trained[("tune", "stage")] == 4 * (64 + 32) + 33 * 10
    loaded = keras.saving.load_model(path).get_weights()
    kept = keras.saving.load_model(tmp_path / "run/0-baseline/model.keras").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(loaded, kept, strict=True))
    refused = netopt(*words[:-1], "opt=distill", "opt.distill.teacher=mlp")
    assert refused.returncode == 2
    assert "opt.distill.epochs" in refused.stderr and "train.epochs=0" in refused.stderr
