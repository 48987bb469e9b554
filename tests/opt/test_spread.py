"""Stages that spread what they take by what each layer answers to it."""

import keras
import numpy as np
import pytest
from keras import layers
from stage_bench import Bench, apply

from netopt_cli.contracts import Network
from netopt_cli.dataset import Dataset
from netopt_cli.graph.calls import calls_by_layer, macs
from netopt_cli.opt.lowrank import LowRank


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


def test_only_a_budget_can_be_spread() -> None:
    with pytest.raises(ValueError, match=r"rank_by=macs alone\. Received: rank_by=energy"):
        LowRank(rank_by="energy", spread="sensitivity")
