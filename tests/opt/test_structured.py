"""Structured pruning as a stage: what is left, what is said, and that it composes."""

import keras
import numpy as np
import pytest
from stage_bench import Bench, apply, build

from netopt_cli.arch import cnn, resnet
from netopt_cli.contracts import Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.channels import read_channels
from netopt_cli.graph.kernels import kernels, sparsity_of
from netopt_cli.opt.prune import Prune
from netopt_cli.opt.structured import Structured


def widths(model: keras.Model) -> dict[str, int]:
    return {group.name: group.size for group in read_channels(model).groups}


def preflight(network: Network, properties: frozenset = frozenset()) -> Preflight:
    network = Network(network.model, properties=properties)
    return Preflight(
        "structured", network, True, lambda arch: network, dict.fromkeys(properties, "qat")
    )


@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor", "geometric_median", "random"])
def test_half_of_the_channels_go_and_training_recovers(bench: Bench, criterion: str) -> None:
    network = bench.fit(bench.fresh(), epochs=4)
    stage = Structured(
        ratio=0.5, of="channels", scope="layerwise", criterion=criterion, epochs=3,
        scoring_samples=64,
    )  # fmt: skip
    smaller = apply(stage, network, bench)
    assert widths(smaller.model) == {"dense_1": 12, "dense_2": 12}
    assert smaller.model.count_params() < 0.5 * network.model.count_params()
    assert bench.results[-1].val_score > 0.8
    assert "dense_1 24 → 12" in bench.notes[-1]


def test_taylor_cuts_what_matters_less_than_random_does(bench: Bench) -> None:
    network = bench.fit(bench.fresh(), epochs=6)

    def accuracy(criterion: str) -> float:
        stage = Structured(
            ratio=0.4, of="channels", criterion=criterion, epochs=0, scoring_samples=64
        )
        return bench.evaluate(apply(stage, network, bench).model)

    assert accuracy("taylor") > accuracy("random")


def test_rounds_share_the_epochs_and_end_at_the_ratio(bench: Bench) -> None:
    stage = Structured(
        ratio=0.75, of="channels", schedule="iterative", rounds=3, epochs=4, scoring_samples=64
    )
    smaller = apply(stage, bench.fresh(), bench)
    assert [len(result.epochs) for result in bench.results] == [1, 1, 2]
    assert sum(widths(smaller.model).values()) == pytest.approx(12, abs=1)


def test_batch_norm_is_recalibrated_and_its_scale_can_decide(bench: Bench) -> None:
    def normalized(shape: tuple[int, ...], classes: int) -> keras.Model:
        return resnet.build(shape, classes, depth=8)

    network = bench.build(normalized)
    norms = [layer for layer in network.model.layers if "Batch" in type(layer).__name__]
    random = np.random.default_rng(0)
    for norm in norms:
        norm.gamma.assign(random.uniform(0.1, 1, norm.gamma.shape))

    def statistics(samples: int) -> np.ndarray:
        stage = Structured(criterion="bn_scale", epochs=0, recalibration_samples=samples)
        model = apply(stage, network, bench).model
        assert model.count_params() < network.model.count_params()
        return np.concatenate(
            [w.numpy() for w in model.non_trainable_variables if w.name == "moving_mean"]
        )

    assert not statistics(0).any()
    assert np.abs(statistics(100)).max() > 1e-3


def test_reinitialize_starts_anew(bench: Bench) -> None:
    stage = Structured(epochs=2, scoring_samples=64, sanity_check="reinitialize")
    apply(stage, bench.fit(bench.fresh(), epochs=2), bench)
    assert bench.restarts == [False, True]
    assert any("new weights" in note for note in bench.notes)


def test_zeros_stay_zeros_when_channels_go(bench: Bench) -> None:
    network = apply(Prune(sparsity=0.8, epochs=1), bench.fresh(), bench)
    smaller = apply(Structured(epochs=2, criterion="l1"), network, bench)
    assert sparsity_of(list(kernels(smaller.model).values())) > 0.5


def test_the_plan_has_the_size_of_what_comes_and_changes_nothing(bench: Bench) -> None:
    network = bench.build(lambda shape, classes: cnn.build((8, 8, 1), classes))
    before = network.model.count_params()
    planned = Structured(ratio=0.5, scope="layerwise").plan(preflight(network))
    assert network.model.count_params() == before > planned.model.count_params()


def test_what_cannot_work_is_said(bench: Bench) -> None:
    network = bench.build(build)
    with pytest.raises(InputError, match=r"exclude leaves no channel .*layers: dense_1, dense_2"):
        Structured(exclude=("*",)).plan(preflight(network))
    with pytest.raises(InputError, match="'structured' cannot come after 'qat'"):
        Structured().plan(preflight(network, frozenset({"fake quantization"})))
    with pytest.raises(InputError, match=r"bn_scale needs channels with a BatchNorm.*dense_1"):
        apply(Structured(criterion="bn_scale"), network, bench)
    inputs = keras.Input((4, 4, 1))
    alone = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    with pytest.raises(InputError, match="no channel of the model can be removed"):
        Structured().plan(preflight(Network(alone)))


def test_a_floor_is_said(bench: Bench) -> None:
    stage = Structured(ratio=0.98, of="channels", scope="layerwise", min_channels=4, epochs=0)
    smaller = apply(stage, bench.fresh(), bench)
    assert set(widths(smaller.model).values()) == {4}
    assert any("at the floor" in note and "dense_1" in note for note in bench.notes)
    assert any("could be removed, not 98.0%" in note for note in bench.notes)


def test_it_works_around_a_layer_without_a_rule(bench: Bench) -> None:
    @keras.saving.register_keras_serializable(package="test_structured")
    class Mystery(keras.layers.Layer):
        def call(self, x):
            return keras.ops.flip(x, axis=-1) * 2.0

    def strange(shape: tuple[int, ...], classes: int) -> keras.Model:
        inputs = keras.Input(shape)
        x = keras.layers.Dense(16, name="free")(keras.layers.Flatten()(inputs))
        x = keras.layers.Dense(8, name="held")(x)
        x = Mystery(name="mystery")(x)
        return keras.Model(inputs, keras.layers.Dense(classes)(x))

    smaller = apply(
        Structured(of="channels", epochs=0, scoring_samples=64), bench.build(strange), bench
    )
    assert widths(smaller.model) == {"free": 8}
    assert smaller.model.get_layer("held").units == 8
    assert any("mystery: left alone, no rule for" in note for note in bench.notes)
