import math
from collections.abc import Callable

import keras
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from netopt_cli.errors import InputError
from netopt_cli.graph import surgery
from netopt_cli.graph.channels import read_channels
from netopt_cli.graph.importance import importance_of
from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.quantizers import LogitsDistance, quantized_weights
from netopt_cli.graph.response import (
    LEVELS,
    Curve,
    TaskLoss,
    answers,
    layers_of,
    scan,
    spread,
)
from netopt_cli.task.classification import CLASSIFICATION

TECHNIQUES = list(LEVELS)
LEVELS_CUT = (0.0, 0.5, 0.75, 0.9)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((32, 8, 8, 3)).astype(np.float32)
Y = RNG.integers(0, 3, 32)


def network() -> keras.Model:
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(8, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


@pytest.fixture
def model() -> keras.Model:
    return network()


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {path: kernel.numpy() for path, kernel in kernels(model).items()}


def test_what_each_technique_can_cut(model: keras.Model) -> None:
    paths = ["conv/kernel", "depthwise/kernel", "hidden/kernel", "logits/kernel"]
    assert layers_of(model, "prune") == layers_of(model, "bits") == paths
    assert layers_of(model, "rank") == ["conv/kernel", "hidden/kernel", "logits/kernel"]
    assert layers_of(model, "structured") == ["conv", "hidden"]


def test_a_kernel_is_pruned_alone_and_the_smallest_weights_first(model: keras.Model) -> None:
    before = values(model)
    for path, level, cut in answers(model, "prune", [0.5, 0.75], values):
        kept = cut[path] != 0
        assert np.mean(~kept) == pytest.approx(level, abs=1 / kept.size)
        assert np.abs(before[path][kept]).min() >= np.abs(before[path][~kept]).max()
        for other in before.keys() - {path}:
            np.testing.assert_array_equal(cut[other], before[other])


def test_a_kernel_of_lower_rank_is_the_nearest_one(model: keras.Model) -> None:
    before = values(model)
    for path, level, cut in answers(model, "rank", [1.0, 0.5, 0.001], values):
        matrix, whole = (k[path].reshape(-1, k[path].shape[-1]) for k in (cut, before))
        rank = max(1, round(level * min(matrix.shape)))
        assert np.linalg.matrix_rank(matrix, tol=1e-4) == rank
        beyond = np.linalg.svd(whole, compute_uv=False)[rank:]
        assert np.linalg.norm(matrix - whole) == pytest.approx(np.linalg.norm(beyond), abs=1e-5)


def test_the_rank_of_an_einsum_kernel_is_that_of_the_matrix_it_computes() -> None:
    inputs = keras.Input((5, 4))
    outputs = keras.layers.EinsumDense("abc,cde->abde", (None, 3, 6), name="heads")(inputs)
    heads = keras.Model(inputs, outputs)
    ((_, _, cut),) = answers(heads, "rank", [0.5], values)
    assert np.linalg.matrix_rank(cut["heads/kernel"].reshape(4, 18), tol=1e-5) == 2


def test_masked_channels_are_those_of_surgery(model: keras.Model) -> None:
    graph = read_channels(model)
    (norm,) = (layer for layer in model.layers if layer.name == "norm")
    norm.set_weights([RNG.uniform(0.5, 1, 8) for _ in range(4)])
    scores = importance_of("l1", model, graph, iter(()), seed=0)(graph.group("conv"))
    weakest = np.argsort(scores)[:2]
    expected = surgery.masked(model, graph, {"conv": weakest})(X).numpy()
    found = {
        (name, level): logits
        for name, level, logits in answers(
            model, "structured", [0.25, 0.99], lambda cut: cut(X).numpy()
        )
    }
    np.testing.assert_allclose(found["conv", 0.25], expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(found["conv", 0.99]).all()


def test_bits_answer_for_one_kernel_at_a_time(model: keras.Model) -> None:
    distance = LogitsDistance(model, X)
    found = {(path, bits): score for path, bits, score in answers(model, "bits", [8, 2], distance)}
    assert {path for path, _ in found} == set(layers_of(model, "bits"))
    for (path, bits), score in found.items():
        with quantized_weights(model, {path: bits}):
            assert distance(model) == score


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_the_model_is_whole_after_every_answer_and_after_an_error(
    technique: str, model: keras.Model
) -> None:
    before = model.get_weights()

    def whole() -> bool:
        return all(map(np.array_equal, model.get_weights(), before))

    levels = LEVELS[technique]
    seen = []
    for name, level, changed in answers(model, technique, levels, lambda cut: not whole()):
        assert whole()
        assert changed
        seen.append((name, level))
    assert seen == [(name, level) for name in layers_of(model, technique) for level in levels]

    def fail(cut: keras.Model) -> float:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        list(answers(model, technique, levels, fail))
    assert whole()


def test_the_task_loss_follows_the_weights(model: keras.Model) -> None:
    loss = TaskLoss(CLASSIFICATION, model, [(X[:20], Y[:20]), (X[20:], Y[20:])])
    log_probabilities = keras.ops.log_softmax(model(X)).numpy()
    assert loss(model) == pytest.approx(-log_probabilities[np.arange(32), Y].mean(), rel=1e-5)
    for weight in model.trainable_variables:
        weight.assign(np.zeros(weight.shape))
    assert loss(model) == pytest.approx(np.log(3), rel=1e-5)


def test_curves_start_whole_and_never_fall(model: keras.Model) -> None:
    # Falls at 8 bits and is no number at 2.
    losses = iter([1.0, 3.0, 0.5, 1.5, 1.2, np.nan])
    curves = scan(model, "bits", [3, 8, 6, 4, 2], lambda cut: next(losses), only=["conv/kernel"])
    assert curves == {"conv/kernel": Curve((32, 8, 6, 4, 3), (0.0, 0.0, 0.5, 0.5, 2.0))}


# Spreading.


def curve_of(damages: list[float]) -> Curve:
    return Curve(LEVELS_CUT, (0.0, *np.cumsum(damages).tolist()))


some_curves = st.lists(
    st.tuples(
        st.lists(st.floats(0, 10), min_size=3, max_size=3).map(curve_of), st.integers(1, 10_000)
    ),
    min_size=1,
    max_size=5,
)


def weights_left(size: float) -> Callable[[float], float]:
    return lambda sparsity: size * (1 - sparsity)


def problem(drawn: list[tuple[Curve, int]]) -> tuple[dict, dict, float]:
    curves = {f"layer_{i}": curve for i, (curve, _) in enumerate(drawn)}
    costs = {f"layer_{i}": weights_left(size) for i, (_, size) in enumerate(drawn)}
    return curves, costs, float(sum(size for _, size in drawn))


def spent(costs: dict, levels: dict) -> float:
    return math.fsum(costs[name](level) for name, level in levels.items())


# A straight part whose price rounding splits.
@example(
    [(curve_of([1.0, 0.0, 0.0]), 1), (curve_of([1.2567730661351129, 4.275160837561331, 3.0]), 351)],
    0.5,
    True,
)
@given(some_curves, st.floats(0.1, 1), st.booleans())
def test_the_budget_is_met(drawn: list, fraction: float, between: bool) -> None:
    curves, costs, total = problem(drawn)
    budget = fraction * total + 1e-6
    levels = spread(curves, costs, budget, between=between)
    assert spent(costs, levels) <= budget
    if between:
        assert spent(costs, levels) == pytest.approx(budget, rel=1e-6)
        assert all(0 <= level <= 0.9 for level in levels.values())
    else:
        assert set(levels.values()) <= set(LEVELS_CUT)


@given(some_curves, st.floats(0.1, 1), st.floats(0.1, 1), st.booleans())
def test_a_smaller_budget_leaves_less_of_every_layer(
    drawn: list, one: float, other: float, between: bool
) -> None:
    curves, costs, total = problem(drawn)
    small, large = (
        spread(curves, costs, fraction * total + 1e-6, between=between)
        for fraction in sorted([one, other])
    )
    assert all(small[name] >= large[name] - 1e-9 for name in curves)


@given(
    st.lists(st.floats(0.01, 10), min_size=3, max_size=3),
    st.floats(1.1, 10),
    st.floats(0.1, 1),
)
def test_the_more_sensitive_of_two_layers_is_cut_less(
    damages: list[float], factor: float, fraction: float
) -> None:
    curves = {"robust": curve_of(damages), "sensitive": curve_of([factor * d for d in damages])}
    costs = dict.fromkeys(curves, weights_left(100))
    levels = spread(curves, costs, fraction * 200 + 1e-6)
    assert levels["sensitive"] <= levels["robust"] + 1e-9


@given(some_curves, st.floats(0.1, 1))
def test_the_damage_is_never_more_than_that_of_cutting_all_alike(
    drawn: list, fraction: float
) -> None:
    drawn = [(_convex(curve), size) for curve, size in drawn]
    curves, costs, total = problem(drawn)
    levels = spread(curves, costs, fraction * total + 1e-6)

    def damage(levels: dict[str, float]) -> float:
        return sum(np.interp(levels[n], LEVELS_CUT, curves[n].damages) for n in curves)

    assert damage(levels) <= damage(dict.fromkeys(curves, 1 - fraction)) + 1e-4


def _convex(curve: Curve) -> Curve:
    steps = np.diff(LEVELS_CUT)
    slopes = np.sort(np.diff(curve.damages) / steps)
    return curve_of((slopes * steps).tolist())


def test_layers_that_are_alike_are_cut_alike() -> None:
    flat = Curve(LEVELS_CUT, (0.0, 0.0, 0.0, 1.0))
    levels = spread({"a": flat, "b": flat}, dict.fromkeys("ab", weights_left(10)), 10)
    assert levels == pytest.approx({"a": 0.5, "b": 0.5}, abs=1e-9)


def test_a_cost_that_falls_with_the_square_ends_at_the_budget() -> None:
    curve = curve_of([1.0, 1.0, 1.0])
    levels = spread({"a": curve}, {"a": lambda ratio: (1 - ratio) ** 2}, 0.3)
    assert (1 - levels["a"]) ** 2 == pytest.approx(0.3)


def test_a_cut_that_saves_nothing_is_not_made() -> None:
    # At three quarters of its rank a square matrix costs as much as before, in two factors.
    curve = Curve((1.0, 0.75, 0.25), (0.0, 0.5, 1.0))
    cost = {"a": lambda rank: min(100.0, 200 * rank)}
    assert spread({"a": curve}, cost, 100) == {"a": 1.0}
    assert spread({"a": curve}, cost, 60, between=False) == {"a": 0.25}


def test_a_budget_out_of_reach_is_refused() -> None:
    with pytest.raises(InputError, match=r"at least 10, which the deepest.* Received: 9"):
        spread({"a": curve_of([0, 0, 0])}, {"a": weights_left(100)}, 9)
