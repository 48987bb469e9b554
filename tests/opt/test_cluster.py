"""`opt=cluster`: the codebook is reached, trained, and held by what comes after."""

from dataclasses import replace

import numpy as np
import pytest
from stage_bench import Bench, apply, build

from netopt_cli.contracts import Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.clustering import shareable
from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.response import TaskLoss
from netopt_cli.opt.cluster import Cluster
from netopt_cli.opt.distill import Distill
from netopt_cli.opt.prune import Prune


def distinct(network: Network, *, biases: bool = False) -> set[float]:
    found = shareable(network.model, biases=biases).values()
    return set(np.concatenate([v.numpy().ravel() for v in found]).tolist())


def preflight(network: Network, **made_by: str) -> Preflight:
    return Preflight("cluster", network, False, build=None, made_by=made_by)


@pytest.mark.parametrize(
    ("scope", "biases", "assignment"),
    [
        ("layer", False, "fixed"),
        ("layer", True, "incremental"),
        ("global", False, "incremental"),
        ("global", True, "fixed"),
    ],
)
def test_a_codebook_has_as_many_values_as_said(
    bench: Bench, scope: str, biases: bool, assignment: str
) -> None:
    stage = Cluster(clusters=6, scope=scope, include_biases=biases, assignment=assignment, epochs=2)
    network = apply(stage, bench.fit(bench.fresh(), epochs=2), bench)
    for layer in ("dense_1", "dense_2", "logits"):
        weights = [v.numpy().ravel() for v in network.model.get_layer(layer).weights]
        assert len(np.unique(np.concatenate(weights if biases else weights[:1]))) <= 6
    assert (len(distinct(network, biases=biases)) <= 6) == (scope == "global")
    assert "codebook" in network.properties
    assert "dense_1/kernel 6" in bench.notes[-1]


def test_training_moves_the_values_and_recovers(bench: Bench) -> None:
    network = bench.fit(bench.fresh(), epochs=6)
    before = bench.results[-1].val_score
    untrained = distinct(apply(Cluster(clusters=4, epochs=0), network, bench))
    assert len(bench.results) == 1
    trained = apply(Cluster(clusters=4, epochs=3), network, bench)
    assert distinct(trained) != untrained
    assert bench.results[-1].val_score >= before - 0.05


def test_weights_that_are_free_make_up_for_the_others(bench: Bench) -> None:
    network = bench.fit(bench.fresh(), epochs=6)

    def after(assignment: str) -> tuple[list[np.ndarray], float]:
        """Which value each weight has, and the loss on the training samples."""
        copy = bench.fresh()
        copy.model.set_weights(network.model.get_weights())
        stage = Cluster(clusters=2, scope="global", assignment=assignment, epochs=3)
        apply(stage, copy, bench)
        ranks = [np.unique(v.numpy(), return_inverse=True)[1] for v in kernels(copy.model).values()]
        samples = list(bench.data.training_batches(64, 64, 0))
        return ranks, TaskLoss(bench.data.task, copy.model, samples)(copy.model)

    (fixed, loss_fixed), (free, loss_free) = after("fixed"), after("incremental")
    assert any((one != other).any() for one, other in zip(fixed, free, strict=True))
    assert loss_free < loss_fixed


def test_putting_weights_on_values_a_few_at_a_time_needs_training() -> None:
    with pytest.raises(ValueError, match=r"assignment=incremental .* needs epochs >= 1"):
        Cluster(assignment="incremental", epochs=0)


@pytest.mark.parametrize(
    ("preserve_zeros", "assignment"), [(None, "fixed"), (True, "fixed"), (None, "incremental")]
)
def test_zeros_and_codebook_survive_what_follows(
    bench: Bench, preserve_zeros: bool | None, assignment: str
) -> None:
    network = apply(Prune(sparsity=0.7, epochs=2), bench.fresh(), bench)
    network = replace(network, properties=network.properties | {"zeros"})
    zeros = {path: v.numpy() == 0 for path, v in kernels(network.model).items()}
    stage = Cluster(
        clusters=5, preserve_zeros=preserve_zeros, scope="global", assignment=assignment, epochs=2
    )
    network = apply(stage, network, bench)
    network = apply(Distill(teacher=build, epochs=2, start="current"), network, bench)
    for path, variable in kernels(network.model).items():
        assert not variable.numpy()[zeros[path]].any()
        if assignment == "fixed":
            assert variable.numpy()[~zeros[path]].all()
    assert len(distinct(network)) <= 5


@pytest.mark.slow
def test_pruning_after_clustering_holds_both(bench: Bench) -> None:
    network = apply(Cluster(clusters=8, scope="global", epochs=1), bench.fresh(), bench)
    network = apply(Prune(sparsity=0.6, epochs=2), network, bench)
    values = np.concatenate([v.numpy().ravel() for v in kernels(network.model).values()])
    assert np.mean(values == 0) == pytest.approx(0.6, abs=0.01)
    assert len(np.unique(values)) <= 9


def test_the_excluded_keep_their_values(bench: Bench) -> None:
    network = apply(Cluster(clusters=3, exclude=("logits/*",), epochs=0), bench.fresh(), bench)
    found = {path: len(np.unique(v.numpy())) for path, v in kernels(network.model).items()}
    assert found["logits/kernel"] == 72 and found["dense_1/kernel"] == 3
    with pytest.raises(InputError, match=r"opt.cluster.exclude leaves no weight .*dense_1/kernel"):
        apply(Cluster(exclude=("*",)), bench.fresh(), bench)


def test_the_plan_clusters_a_copy(bench: Bench) -> None:
    network = bench.fresh()
    before = network.model.get_weights()
    planned = Cluster(clusters=4, scope="global").plan(preflight(network))
    assert len(distinct(planned)) == 4 and "codebook" in planned.properties
    for old, new in zip(before, network.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_orders_that_destroy_are_refused(bench: Bench) -> None:
    quantized = replace(bench.fresh(), properties=frozenset({"fake quantization"}))
    with pytest.raises(InputError, match=r"'cluster' cannot come after 'qat'.* put 'cluster'"):
        Cluster().plan(preflight(quantized, **{"fake quantization": "qat"}))
    pruned = replace(bench.fresh(), properties=frozenset({"zeros"}))
    with pytest.raises(InputError, match="'cluster' cannot come after 'prune': its zeros"):
        Cluster(preserve_zeros=False).plan(preflight(pruned, zeros="prune"))
