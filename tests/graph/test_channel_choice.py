"""Choosing channels: the budget is met with the least important ones, within bounds."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt_cli.arch import cnn, resnet
from netopt_cli.export.litert import freeze
from netopt_cli.graph.channel_choice import Bounds, Choice, Costs, choose
from netopt_cli.graph.channels import ChannelGraph, read_channels
from netopt_cli.graph.surgery import remove
from netopt_cli.measure.macs import count_macs

L = keras.layers


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return resnet.build((8, 8, 3), 4, depth=8)


@pytest.fixture(scope="module")
def graph(network: keras.Model) -> ChannelGraph:
    return read_channels(network)


def macs_of(model: keras.Model) -> int:
    total = count_macs(freeze(model).traced.graph).total
    assert total is not None
    return total


def scores_of(graph: ChannelGraph, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {group.name: random.random(group.size) for group in graph.groups}


def test_costs_are_those_of_the_smaller_model(network: keras.Model, graph: ChannelGraph) -> None:
    costs = Costs(network, graph, graph.groups)
    assert costs.of("macs", {}) == macs_of(network)
    assert costs.of("params", {}) == network.count_params()
    gone = {group.name: group.size // 3 for group in graph.groups}
    smaller = remove(network, graph, {name: range(count) for name, count in gone.items()})
    assert costs.of("macs", gone) == macs_of(smaller)
    assert costs.of("params", gone) == smaller.count_params()


@given(
    ratio=st.floats(0, 0.95),
    of=st.sampled_from(["macs", "params", "channels"]),
    scope=st.sampled_from(["global", "layerwise"]),
    bounds=st.builds(
        Bounds,
        min_channels=st.integers(1, 5),
        max_ratio=st.floats(0.3, 1),
        round_to=st.sampled_from([1, 2, 4]),
    ),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=60)
def test_a_choice_meets_its_budget_within_its_bounds(
    network: keras.Model, graph: ChannelGraph, seed: int, bounds: Bounds, **budget: object
) -> None:
    scores = scores_of(graph, seed)
    choice = choose(network, graph, scores, bounds=bounds, **budget)
    assert choice.reached >= budget["ratio"] - 1e-6 or choice.at_floor
    for group in graph.groups:
        removed = choice.removed.get(group.name, np.zeros(0, int))
        left = group.size - len(removed)
        assert left >= min(group.size, bounds.min_channels)
        assert left >= group.size * (1 - bounds.max_ratio) - 1e-6
        assert left % bounds.round_to == 0 or left == group.size
        others = np.setdiff1d(np.arange(group.size), removed)
        if len(removed) and len(others):
            assert scores[group.name][removed].max() <= scores[group.name][others].min()


def choice_of(network: keras.Model, graph: ChannelGraph, **changes: object) -> Choice:
    arguments = {"ratio": 0.5, "of": "macs", "scope": "layerwise", "bounds": Bounds()} | changes
    return choose(network, graph, scores_of(graph, 0), **arguments)


def test_a_budget_is_not_overshot(network: keras.Model, graph: ChannelGraph) -> None:
    for of in ("macs", "params", "channels"):
        reached = choice_of(network, graph, of=of, scope="global").reached
        assert 0.5 - 1e-6 <= reached < 0.56, of


def test_a_ratio_that_would_empty_a_layer_stops_at_the_floor() -> None:
    model = cnn.build((8, 8, 1), 4, filters=(4, 64), dense=16)
    graph = read_channels(model)
    scores = {g.name: np.full(g.size, 0.0 if g.name == "conv_1" else 1.0) for g in graph.groups}
    scores = {name: score + np.arange(len(score)) * 1e-6 for name, score in scores.items()}
    choice = choose(
        model, graph, scores, ratio=0.5, of="macs", scope="global", bounds=Bounds(min_channels=2)
    )
    assert len(choice.removed["conv_1"]) == 2
    assert "conv_1" in choice.at_floor
    choice = choose(
        model, graph, scores, ratio=0.999, of="macs", scope="layerwise", bounds=Bounds()
    )
    assert set(choice.at_floor) == {group.name for group in graph.groups}
    assert choice.reached < 0.999
