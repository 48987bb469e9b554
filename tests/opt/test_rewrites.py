"""What the rewriting stages do to a network: planned and done, alone and in an order."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers
from stage_bench import Bench, apply

from netopt_cli.contracts import Network, Planned, Preflight, Property, Stage
from netopt_cli.errors import InputError
from netopt_cli.graph.kernels import kernels, sparsity_of
from netopt_cli.opt.fold import Fold
from netopt_cli.opt.lighten import Lighten
from netopt_cli.opt.lowrank import LowRank
from netopt_cli.opt.prune import Prune
from netopt_cli.opt.share import Share
from netopt_cli.planning import plan

STAGES = {
    "lowrank": LowRank(amount=0.6, epochs=1),
    "lighten": Lighten(epochs=1, keep_first=False),
    "fold": Fold(),
    "share": Share(epochs=1),
}


def build(shape: tuple[int, ...], classes: int) -> keras.Model:
    """Two equal convolutions, two equal dense layers, norms."""
    inputs = keras.Input(shape, name="input")
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    for index in (1, 2):
        x = layers.Conv2D(8, 3, padding="same", use_bias=False, name=f"conv_{index}")(x)
        x = layers.BatchNormalization(name=f"bn_{index}")(x)
        x = layers.ReLU(name=f"relu_{index}")(x)
    x = layers.Flatten(name="flatten")(x)
    for index in (1, 2, 3):
        x = layers.Dense(16, activation="relu", name=f"dense_{index}")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="rewritable")


class Giving:
    """A stage before the one in question, that has given the network a property."""

    def __init__(self, given: Property) -> None:
        self.given = given

    def plan(self, preflight: Preflight) -> Network:
        return replace(preflight.network, properties=frozenset({self.given}))


@pytest.fixture
def network(bench: Bench) -> Network:
    return bench.fit(bench.build(build), epochs=2)


def shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    return {weight.path: tuple(weight.shape) for weight in model.weights}


def planned(stage: Stage, network: Network, bench: Bench) -> Network:
    return plan(network, {"it": stage}, bench.build, bench.data)["it"]


@pytest.mark.parametrize("name", STAGES)
def test_the_plan_has_the_shapes_and_properties_of_the_result(
    name: str, bench: Bench, network: Network
) -> None:
    before = shapes(network.model)
    expected = planned(STAGES[name], network, bench)
    assert isinstance(STAGES[name], Planned) and shapes(network.model) == before
    result = apply(STAGES[name], network, bench)
    assert shapes(result.model) == shapes(expected.model) != before
    assert result.properties == expected.properties
    assert result.model.count_params() < network.model.count_params()
    assert result.recipe == network.recipe and bench.notes
    assert ("shared weights" in result.properties) == (name == "share")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        (name, given)
        for name in ("lowrank", "lighten")
        for given in ("zeros", "codebook", "fake quantization")
    ]
    + [("fold", "codebook"), ("fold", "fake quantization"), ("share", "fake quantization")],
)
def test_an_order_that_would_destroy_is_refused(
    name: str, given: Property, bench: Bench, network: Network
) -> None:
    with pytest.raises(InputError, match=rf"'{name}' cannot come after 'maker'.*put '{name}' be"):
        plan(network, {"maker": Giving(given), name: STAGES[name]}, bench.build, bench.data)


@pytest.mark.parametrize("given", ["zeros", "codebook"])
def test_only_the_mean_destroys_zeros_and_codebooks(
    given: Property, bench: Bench, network: Network
) -> None:
    stages = {"maker": Giving(given), "share": Share(start="first")}
    after = plan(network, stages, bench.build, bench.data)["share"]
    assert after.properties == {given, "shared weights"}
    stages["share"] = Share(start="mean")
    with pytest.raises(InputError, match=r"put 'share' before it, or use opt.share.start=first"):
        plan(network, stages, bench.build, bench.data)


@pytest.mark.parametrize("stage", [Fold(), Share(epochs=2)], ids=["fold", "share"])
def test_zeros_survive_and_are_kept(stage: Stage, bench: Bench, network: Network) -> None:
    pruned = apply(Prune(sparsity=0.7, epochs=2), network, bench)
    zeros = {path: v.numpy() == 0 for path, v in kernels(pruned.model).items()}
    result = bench.fit(apply(stage, pruned, bench), epochs=1)
    found = kernels(result.model)
    assert sparsity_of(list(found.values())) > 0.5
    for path, variable in found.items():
        assert not variable.numpy()[zeros[path]].any()


@pytest.mark.slow
def test_training_recovers_what_the_rewrite_lost(bench: Bench) -> None:
    network = bench.fit(bench.build(build), epochs=8)
    before = bench.results[-1].val_score
    assert before > 0.9
    for stage in (LowRank(amount=0.5, epochs=6), Lighten(epochs=6), Share(epochs=6)):
        apply(stage, network, bench)
        assert bench.results[-1].val_score >= before - 0.1, stage


def test_folding_trains_nothing_and_keeps_the_outputs(bench: Bench, network: Network) -> None:
    trainings = len(bench.results)
    folded = apply(Fold(), network, bench)
    x = bench.data.normalization.numpy(bench.data.test.x)
    np.testing.assert_allclose(folded.model(x), network.model(x), atol=1e-4)
    assert len(bench.results) == trainings
    assert bench.notes[-1].startswith("2 BatchNormalizations folded, parameters")


def test_low_rank_without_epochs_trains_nothing(bench: Bench, network: Network) -> None:
    trainings = len(bench.results)
    apply(LowRank(rank_by="energy", amount=0.5, epochs=0), network, bench)
    assert len(bench.results) == trainings
    result = apply(LowRank(rank_by="ratio", amount=1.0, epochs=0), network, bench)
    assert shapes(result.model) == shapes(network.model)
    assert bench.notes[-1] == "nothing was factorized"


def test_distillation_brings_the_light_network_to_the_one_before(bench: Bench) -> None:
    def build(shape: tuple[int, ...], classes: int) -> keras.Model:
        inputs = keras.Input(shape)  # No norm: its statistics are late in so short a training.
        x = layers.Conv2D(8, 3, activation="relu")(layers.Conv2D(8, 3, padding="same")(inputs))
        return keras.Model(inputs, layers.Dense(classes)(layers.Flatten()(x)))

    network = bench.fit(bench.build(build), epochs=6)
    before = network.model.get_weights()
    x = bench.data.normalization.numpy(bench.data.test.x)

    def softened(model: keras.Model) -> np.ndarray:
        return keras.ops.softmax(model(x) / 4.0).numpy()

    divergences = {}
    for distill in (False, True):
        stage = Lighten(distill=distill, student_loss_weight=0.0, epochs=6, keep_first=False)
        light = softened(apply(stage, network, bench).model)
        teacher = softened(network.model)
        divergences[distill] = np.sum(teacher * np.log(teacher / light), axis=-1).mean()
    assert divergences[True] < 0.3 * divergences[False]
    for old, new in zip(before, network.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
