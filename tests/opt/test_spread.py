"""Stages that spread what they take by what each layer answers to it."""

import keras
import numpy as np
import pytest
from keras import layers
from stage_bench import Bench, apply

from netopt_cli.contracts import Network
from netopt_cli.dataset import Dataset
from netopt_cli.graph.calls import calls_by_layer, macs
from netopt_cli.graph.kernels import kernels, sparsity_of
from netopt_cli.opt.lowrank import LowRank
from netopt_cli.opt.prune import Prune


def half_idle(shape: tuple[int, ...], classes: int) -> keras.Model:
    """Two equal branches, of which one does not reach the outputs."""
    inputs = keras.Input(shape, name="input")
    flat = layers.Flatten()(inputs)
    alive = layers.Dense(24, activation="relu", name="alive")(flat)
    idle = layers.Dense(24, activation="relu", name="idle")(flat)
    silent = layers.Dense(classes, kernel_initializer="zeros", name="silent")(idle)
    return keras.Model(inputs, layers.Add()([layers.Dense(classes, name="logits")(alive), silent]))


@pytest.fixture
def bench(blobs_data: Dataset) -> Bench:
    return Bench(blobs_data)


@pytest.fixture
def network(bench: Bench) -> Network:
    return bench.build(half_idle)


def test_lower_ranks_go_where_the_loss_does_not_rise(bench: Bench, network: Network) -> None:
    model = network.model
    x = bench.data.normalization.numpy(bench.data.test.x)
    stage = LowRank(amount=0.7, epochs=0, spread="sensitivity")
    thinner = apply(stage, network, bench).model
    names = {layer.name for layer in thinner.layers}
    assert "idle_basis" in names and "alive_basis" not in names
    np.testing.assert_allclose(thinner(x), model(x), atol=1e-4)
    total, left = (
        sum(macs(layer, calls) for layer in m.layers if (calls := calls_by_layer(m)[id(layer)]))
        for m in (model, thinner)
    )
    assert left <= 0.7 * total
    by_energy = apply(LowRank(amount=0.7, epochs=0), network, bench).model
    assert np.abs(by_energy(x) - model(x)).max() > 1e-2


@pytest.mark.parametrize("schedule", ["one_shot", "polynomial"])
def test_weights_go_where_the_loss_does_not_rise(
    schedule: str, bench: Bench, network: Network
) -> None:
    network = bench.fit(network, epochs=4)
    for name, factor in {"silent": 0, "idle": 10}.items():
        kernel = network.model.get_layer(name).kernel
        kernel.assign(factor * kernel)
    stage = Prune(
        sparsity=0.4, scope="sensitivity", schedule=schedule, epochs=2,
        layer_sparsity={"logits/*": 0.25},
    )  # fmt: skip
    found = kernels(apply(stage, network, bench).model)
    by_layer = {path: sparsity_of([kernel]) for path, kernel in found.items()}
    assert by_layer["logits/kernel"] == pytest.approx(0.25, abs=0.01)
    assert by_layer["idle/kernel"] > 0.7  # Though its weights are the largest.
    assert by_layer["alive/kernel"] < 0.1
    others = [kernel for path, kernel in found.items() if path != "logits/kernel"]
    assert sparsity_of(others) == pytest.approx(0.4, abs=0.002)
    assert bench.notes[0].startswith("sparsity by sensitivity: alive/kernel ")


def test_n_of_m_cannot_be_spread() -> None:
    with pytest.raises(ValueError, match="scope=sensitivity spreads a sparsity over the layers"):
        Prune(pattern="n_of_m", scope="sensitivity")


def test_only_a_budget_can_be_spread() -> None:
    with pytest.raises(ValueError, match=r"rank_by=macs alone\. Received: rank_by=energy"):
        LowRank(rank_by="energy", spread="sensitivity")
