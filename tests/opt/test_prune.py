"""What pruning does to a network, with real trainings of a tiny one."""

from dataclasses import replace
from itertools import pairwise

import keras
import numpy as np
import pytest
from stage_bench import Bench, apply, build

from netopt_cli.contracts import Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.kernels import kernels, sparsity_of
from netopt_cli.opt.distill import Distill
from netopt_cli.opt.prune import Prune

LEARNED = ["movement", "l0", "variational"]
SCORED = ["magnitude", "lamp", "snip", "taylor", "random"]


def zeros_of(network: Network) -> dict[str, np.ndarray]:
    return {path: v.numpy() == 0 for path, v in kernels(network.model).items()}


def values_of(network: Network) -> np.ndarray:
    return np.concatenate([v.numpy().ravel() for v in kernels(network.model).values()])


def preflight(network: Network, *, is_first: bool = True) -> Preflight:
    made_by = dict.fromkeys(network.properties, "earlier")
    return Preflight("prune", network, is_first, lambda arch: network, made_by)


@pytest.mark.parametrize("scope", ["global", "layerwise"])
@pytest.mark.parametrize("schedule", ["polynomial", "one_shot"])
def test_prune_reaches_its_sparsity_exactly(bench: Bench, scope: str, schedule: str) -> None:
    network = apply(
        Prune(sparsity=0.75, scope=scope, schedule=schedule, epochs=4), bench.fresh(), bench
    )
    found = kernels(network.model)
    assert sparsity_of(list(found.values())) == pytest.approx(0.75, abs=0.001)
    by_layer = {path: sparsity_of([v]) for path, v in found.items()}
    if scope == "layerwise":
        assert by_layer == pytest.approx(dict.fromkeys(found, 0.75), abs=0.02)
    else:
        assert max(by_layer.values()) - min(by_layer.values()) > 0.05
    total = sum(v.numpy().size for v in found.values())
    zeros = sum(int((v.numpy() == 0).sum()) for v in found.values())
    assert zeros == round(0.75 * total) or scope == "layerwise"
    assert "75.0% of 1,032 weights" in bench.notes[0]


def test_prune_removes_the_smallest_and_training_recovers(bench: Bench) -> None:
    network = bench.fit(bench.fresh(), epochs=6)
    before = bench.results[-1].val_score
    weights = {path: v.numpy() for path, v in kernels(network.model).items()}
    network = apply(Prune(sparsity=0.5, schedule="one_shot", epochs=3), network, bench)
    everything = np.concatenate([np.abs(w).ravel() for w in weights.values()])
    threshold = np.quantile(everything, 0.5)
    for path, variable in kernels(network.model).items():
        np.testing.assert_array_equal(variable.numpy() == 0, np.abs(weights[path]) < threshold)
    assert bench.results[-1].val_score >= before - 0.05


def test_zeros_survive_later_training_and_other_stages(bench: Bench) -> None:
    network = apply(Prune(sparsity=0.8, epochs=2), bench.fresh(), bench)
    zeros = {path: v.numpy() == 0 for path, v in kernels(network.model).items()}
    bench.is_first = False
    network = apply(Distill(teacher=build, epochs=2), network, bench)
    for path, variable in kernels(network.model).items():
        assert not variable.numpy()[zeros[path]].any()
    assert bench.restarts == [False, False, False]


def test_prune_leaves_the_excluded_alone(bench: Bench) -> None:
    network = apply(Prune(sparsity=0.9, exclude=("logits/*",), epochs=1), bench.fresh(), bench)
    by_layer = {path: sparsity_of([v]) for path, v in kernels(network.model).items()}
    assert by_layer["logits/kernel"] == 0 and by_layer["dense_1/kernel"] > 0.5
    with pytest.raises(InputError, match=r"opt.prune.exclude leaves no weight .*dense_1/kernel"):
        apply(Prune(exclude=("*",)), bench.fresh(), bench)


@pytest.fixture(scope="module")
def trained(blobs_data) -> list[np.ndarray]:
    return Bench(blobs_data).fit(Bench(blobs_data).fresh(), epochs=8).model.get_weights()


def trained_network(bench: Bench, trained: list[np.ndarray]) -> Network:
    network = bench.fresh()
    network.model.set_weights(trained)
    return network


@pytest.mark.parametrize(
    ("criterion", "schedule"),
    [
        *((criterion, "one_shot") for criterion in SCORED),
        *((criterion, "polynomial") for criterion in ["taylor", "random", *LEARNED]),
        ("movement", "one_shot"),
    ],
)
def test_every_criterion_ends_at_the_sparsity(
    bench: Bench, trained: list[np.ndarray], criterion: str, schedule: str
) -> None:
    epochs = 6 if criterion in LEARNED else 2
    stage = Prune(sparsity=0.7, criterion=criterion, schedule=schedule, epochs=epochs)
    network = apply(stage, trained_network(bench, trained), bench)
    assert np.mean(values_of(network) == 0) == pytest.approx(0.7, abs=0.001)
    assert sum(len(result.epochs) for result in bench.results) == epochs
    assert network.properties == {"zeros"}
    if criterion != "random" and (criterion, schedule) != ("movement", "polynomial"):
        assert bench.results[-1].val_score > 0.9


def test_criteria_that_know_something_beat_the_random_mask(
    bench: Bench, trained: list[np.ndarray]
) -> None:
    def kept_accuracy(criterion: str) -> float:
        stage = Prune(sparsity=0.9, criterion=criterion, schedule="one_shot", epochs=2,
                      learning_rate=1e-5)  # fmt: skip
        return bench.evaluate(apply(stage, trained_network(bench, trained), bench).model)

    accuracies = {c: kept_accuracy(c) for c in ("random", "magnitude", "lamp", "snip", "taylor")}
    control = accuracies.pop("random")
    assert control + 0.1 < min(accuracies.values()), (control, accuracies)


def test_pruned_weights_stay_away_while_the_sparsity_grows(bench: Bench) -> None:
    seen: list[np.ndarray] = []
    network = bench.fresh()
    fit = bench.fit

    def spying(network: Network, *, modifiers=(), **options) -> Network:
        spy = replace(modifiers[0], before_steps=lambda *_: seen.append(values_of(network) == 0))
        return fit(network, modifiers=[*modifiers, spy], **options)

    bench.fit = spying
    apply(Prune(sparsity=0.8, criterion="taylor", epochs=3), network, bench)
    shares = [zeros.mean() for zeros in seen]
    assert shares[0] == 0 and sorted(shares) == shares and len(set(np.round(shares, 3))) > 8
    assert all(later[earlier].all() for earlier, later in pairwise(seen))


def test_rounds_remove_the_same_share_each_and_share_the_epochs(bench: Bench) -> None:
    reached: list[float] = []
    fit = bench.fit

    def spying(network: Network, **options) -> Network:
        reached.append(float(np.mean(values_of(network) == 0)))
        return fit(network, **options)

    bench.fit = spying
    apply(Prune(sparsity=0.875, schedule="iterative", rounds=3, epochs=4), bench.fresh(), bench)
    assert reached == pytest.approx([0.5, 0.75, 0.875], abs=0.001)
    assert sorted(len(result.epochs) for result in bench.results) == [1, 1, 2]
    assert bench.restarts == [False] * 3


def test_the_lottery_goes_back_before_each_round(bench: Bench, trained: list[np.ndarray]) -> None:
    starts: list[np.ndarray] = []
    fit = bench.fit

    def spying(network: Network, **options) -> Network:
        starts.append(values_of(network))
        return fit(network, **options)

    start = values_of(bench.fresh())
    bench.fit = spying
    network = trained_network(bench, trained)
    network = apply(Prune(sparsity=0.75, schedule="lottery", rounds=2, epochs=2), network, bench)
    for weights, share in zip(starts, (0.5, 0.75), strict=True):
        assert np.mean(weights == 0) == pytest.approx(share, abs=0.001)
        np.testing.assert_array_equal(weights, np.where(weights == 0, 0, start))
    assert bench.restarts == [True, True]
    assert [len(result.epochs) for result in bench.results] == [2, 2]


def test_snip_in_the_lottery_judges_weights_that_are_not_trained(
    bench: Bench, trained: list[np.ndarray]
) -> None:
    stage = Prune(criterion="snip", schedule="lottery", rounds=1, epochs=1)
    of_trained = zeros_of(apply(stage, trained_network(bench, trained), bench))
    of_new = zeros_of(apply(stage, bench.fresh(), bench))
    for path, zeros in of_new.items():
        np.testing.assert_array_equal(of_trained[path], zeros)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 8)])
@pytest.mark.parametrize("schedule", ["one_shot", "polynomial"])
def test_n_of_m_leaves_n_in_each_block_of_inputs(
    bench: Bench, n: int, m: int, schedule: str
) -> None:
    stage = Prune(pattern="n_of_m", n=n, m=m, schedule=schedule, epochs=2)
    network = apply(stage, bench.fresh(), bench)
    for zeros in zeros_of(network).values():
        blocks = zeros.T.reshape(-1, m)  # (in, out) -> blocks of consecutive inputs
        assert (blocks.sum(-1) == m - n).all()


def test_n_of_m_says_which_layers_it_leaves(bench: Bench) -> None:
    stage = Prune(pattern="n_of_m", n=1, m=16, epochs=1)
    zeros = zeros_of(apply(stage, bench.fresh(), bench))
    assert zeros["dense_1/kernel"].mean() == 15 / 16
    assert not zeros["dense_2/kernel"].any() and not zeros["logits/kernel"].any()
    assert any("dense_2/kernel: left" in n and "m=16" in n and "24" in n for n in bench.notes)
    with pytest.raises(InputError, match=r"n_of_m fits no weight.*dense_1/kernel"):
        apply(Prune(pattern="n_of_m", n=1, m=7), bench.fresh(), bench)


def test_a_layer_may_have_its_own_sparsity(bench: Bench) -> None:
    stage = Prune(
        sparsity=0.9, layer_sparsity={"logits/*": 0.25, "*": 0.5}, schedule="one_shot", epochs=1
    )
    zeros = zeros_of(apply(stage, bench.fresh(), bench))
    shares = {path: z.mean() for path, z in zeros.items()}
    assert shares == {"dense_1/kernel": 0.5, "dense_2/kernel": 0.5, "logits/kernel": 0.25}
    with pytest.raises(InputError, match=r"layer_sparsity .*'logit/kernel'.*'logits/kernel'"):
        apply(Prune(layer_sparsity={"logit/kernel": 0.5}), bench.fresh(), bench)


@pytest.mark.parametrize("scope", ["global", "layerwise", "sensitivity"])
def test_a_count_of_weights_is_what_stays(bench: Bench, scope: str) -> None:
    stage = Prune(weights_left=100, scope=scope, schedule="one_shot", epochs=1)
    zeros = zeros_of(apply(stage, bench.fresh(), bench))
    assert sum((~z).sum() for z in zeros.values()) == pytest.approx(100, abs=2)
    with pytest.raises(
        InputError, match=r"weights_left must be below the [\d,]+ weights.*1,000,000"
    ):
        Prune(weights_left=10**6).plan(preflight(bench.fresh()))


@pytest.mark.parametrize("scope", ["global", "layerwise"])
def test_no_layer_is_emptied_and_it_is_said(bench: Bench, scope: str) -> None:
    network = bench.fresh()
    kernels(network.model)["logits/kernel"].assign(np.full((24, 3), 1e-9))
    stage = Prune(sparsity=0.99, scope=scope, schedule="one_shot", epochs=1, learning_rate=1e-6)
    zeros = zeros_of(apply(stage, network, bench))
    assert (~zeros["logits/kernel"]).sum() == 1
    assert any("logits/kernel: only its most important weight stays" in n for n in bench.notes)


def test_a_shuffled_mask_has_the_same_sizes_and_other_places(bench: Bench) -> None:
    options = {"sparsity": 0.8, "schedule": "one_shot", "epochs": 2}
    plain = zeros_of(apply(Prune(**options), bench.fresh(), bench))
    start = bench.fresh()
    before = values_of(start)
    starts: list[np.ndarray] = []
    fit = bench.fit

    def spying(network: Network, **given) -> Network:
        starts.append(values_of(network))
        return fit(network, **given)

    bench.fit = spying
    shuffled = zeros_of(apply(Prune(**options, sanity_check="shuffle_mask"), start, bench))
    for path, zeros in plain.items():
        assert shuffled[path].sum() == zeros.sum()
        assert (shuffled[path] != zeros).any()
    np.testing.assert_array_equal(starts[1], np.where(starts[1] == 0, 0, before))
    assert any("sanity check" in note for note in bench.notes)


def test_a_shuffled_n_of_m_mask_is_one_too(bench: Bench) -> None:
    options = {"pattern": "n_of_m", "schedule": "one_shot", "epochs": 1}
    plain = zeros_of(apply(Prune(**options), bench.fresh(), bench))
    stage = Prune(**options, sanity_check="shuffle_mask")
    shuffled = zeros_of(apply(stage, bench.fresh(), bench))
    for path, zeros in shuffled.items():
        assert (zeros.T.reshape(-1, 4).sum(-1) == 2).all() and (zeros != plain[path]).any()


def test_new_weights_train_under_the_same_mask(bench: Bench) -> None:
    options = {"sparsity": 0.8, "schedule": "one_shot", "epochs": 1, "learning_rate": 1e-6}
    plain = apply(Prune(**options), bench.fresh(), bench)
    anew = apply(Prune(**options, sanity_check="reinitialize"), bench.fresh(), bench)
    for path, zeros in zeros_of(plain).items():
        np.testing.assert_array_equal(zeros_of(anew)[path], zeros)
    left = values_of(plain) != 0
    assert np.abs(values_of(plain) - values_of(anew))[left].mean() > 0.05
    assert bench.restarts == [False, False, True]


def normalized(shape: tuple[int, ...], classes: int) -> keras.Model:
    inputs = keras.Input(shape)
    x = keras.layers.Dense(16, name="dense")(keras.layers.Flatten()(inputs))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm", momentum=0.999)(x))
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(x))


@pytest.mark.parametrize("recalibrate", [True, False])
def test_batch_norm_fits_the_weights_that_are_left(bench: Bench, recalibrate: bool) -> None:
    stage = Prune(epochs=1, recalibrate_batch_norm=recalibrate)
    network = apply(stage, bench.build(normalized), bench)
    flatten, dense, norm = network.model.layers[1:4]
    x, _ = next(bench.data.normalized_batches(bench.data.train, 200))
    error = np.abs(norm.moving_mean - dense(flatten(x)).numpy().mean(0)).max()
    assert bool(error < 1e-3) is recalibrate
    assert any("BatchNorm" in note for note in bench.notes) is recalibrate


def test_a_second_pruning_goes_on_from_the_first(bench: Bench) -> None:
    first = apply(Prune(sparsity=0.5, epochs=1), bench.fresh(), bench)
    zeros = zeros_of(first)
    second = apply(Prune(sparsity=0.7, criterion="random", epochs=1), first, bench)
    assert np.mean(values_of(second) == 0) == pytest.approx(0.7, abs=0.001)
    assert all(zeros_of(second)[path][z].all() for path, z in zeros.items())
    third = apply(Prune(sparsity=0.2, criterion="l0", epochs=2), second, bench)
    assert np.mean(values_of(third) == 0) >= 0.7 - 0.001


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "n_of_m", "n": 4, "m": 4}, "n must be below m. Received: n=4, m=4"),
        ({"pattern": "n_of_m", "layer_sparsity": {"*": 0.5}}, "layer_sparsity cannot be met"),
        ({"pattern": "n_of_m", "weights_left": 9}, "weights_left counts .*weights_left=9"),
        ({"layer_sparsity": {"*": 0.5}, "weights_left": 9}, "weights_left counts .*neither"),
        ({"criterion": "l0", "schedule": "iterative"}, "polynomial or one_shot.*iterative"),
        ({"criterion": "movement", "epochs": 1}, "epochs must be >= 2.*Received: epochs=1"),
        ({"schedule": "iterative", "rounds": 9}, "epochs must be >= rounds.*rounds=9"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prune(**options)


@pytest.mark.parametrize("options", [{"sparsity": 0.6}, {"pattern": "n_of_m"}])
def test_the_plan_has_the_zeros_and_leaves_the_network_alone(bench: Bench, options: dict) -> None:
    network = bench.fresh()
    before = values_of(network)
    planned = Prune(**options).plan(preflight(network))
    share = options.get("sparsity", 0.5)
    assert sparsity_of(list(kernels(planned.model).values())) == pytest.approx(share, abs=0.001)
    assert "zeros" in planned.properties
    np.testing.assert_array_equal(values_of(network), before)
    assert not network.properties


def test_the_plan_refuses_what_cannot_work(bench: Bench) -> None:
    network = bench.fresh()
    with pytest.raises(InputError, match=r"schedule=lottery goes back.*put it first"):
        Prune(schedule="lottery").plan(preflight(network, is_first=False))
    Prune(schedule="lottery").plan(preflight(network))
    clustered = replace(network, properties=frozenset({"codebook"}))
    with pytest.raises(InputError, match=r"'prune' cannot come after 'earlier': .*prune first"):
        Prune().plan(preflight(clustered))
    with pytest.raises(InputError, match=r"n_of_m fits no weight"):
        Prune(pattern="n_of_m", n=1, m=7).plan(preflight(network))


def test_a_network_without_kernels_is_refused(bench: Bench) -> None:
    inputs = keras.Input((4,))
    scaled = keras.Model(inputs, keras.layers.LayerNormalization()(inputs), name="scaling")
    with pytest.raises(InputError, match=r"needs trainable kernels, and model 'scaling' has none"):
        Prune().plan(preflight(Network(scaled)))
