"""Importances: what each criterion looks at, on networks where the answer is known."""

import keras
import numpy as np
import pytest

from netopt_cli.graph.channels import Group, read_channels, values_of
from netopt_cli.graph.importance import Criterion, importance_of
from netopt_cli.task.classification import CLASSIFICATION

L = keras.layers


@pytest.fixture
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = L.Dense(5, name="hidden", use_bias=False)(inputs)
    x = L.BatchNormalization(name="norm")(x)
    x = L.ReLU()(x)
    return keras.Model(inputs, L.Dense(3, name="logits")(x))


def scores(model: keras.Model, criterion: Criterion, seed: int = 0) -> np.ndarray:
    graph = read_channels(model)
    random = np.random.default_rng(1)
    batches = [(random.normal(size=(16, 6)).astype("float32"), np.arange(16) % 3)] * 2
    found = importance_of(criterion, model, graph, iter(batches), seed, task=CLASSIFICATION)(
        graph.group("hidden")
    )
    assert found is not None and found.shape == (5,)
    return found


def group_of(model: keras.Model) -> Group:
    return read_channels(model).group("hidden")


def test_norms_are_over_all_weights_of_a_unit(model: keras.Model) -> None:
    kernel, *_ = model.get_layer("hidden").get_weights()
    gamma, beta, mean, variance = model.get_layer("norm").get_weights()
    out, _ = model.get_layer("logits").get_weights()
    rows = np.concatenate([kernel.T, np.stack([gamma, beta, mean, variance], 1), out], axis=1)
    np.testing.assert_allclose(scores(model, "l1"), np.abs(rows).sum(1), rtol=1e-5)
    np.testing.assert_allclose(scores(model, "l2"), np.linalg.norm(rows, axis=1), rtol=1e-5)


def test_batch_norm_scale_reads_gamma_alone(model: keras.Model) -> None:
    weights = model.get_layer("norm").get_weights()
    weights[0] = np.array([3, -1, 2, -5, 4], np.float32)
    model.get_layer("norm").set_weights(weights)
    assert scores(model, "bn_scale").tolist() == [3, 1, 2, 5, 4]
    plain = keras.Sequential([keras.Input((6,)), L.Dense(5, name="hidden"), L.Dense(3)])
    graph = read_channels(plain)
    found = importance_of("bn_scale", plain, graph, iter(()), 0)
    assert found(graph.group("hidden")) is None


def test_taylor_gives_nothing_to_a_unit_that_the_loss_does_not_see(model: keras.Model) -> None:
    kernel, bias = model.get_layer("logits").get_weights()
    kernel[2] = 0
    model.get_layer("logits").set_weights([kernel, bias])
    found = scores(model, "taylor")
    assert found[2] == 0 and (np.delete(found, 2) > 0).all()


def test_the_geometric_median_is_the_least_important(model: keras.Model) -> None:
    kernel = np.zeros((6, 5), np.float32)
    kernel[0] = [-4, -1, 0, 1, 7]
    model.get_layer("hidden").set_weights([kernel])
    assert scores(model, "geometric_median").tolist() == pytest.approx([23, 14, 13, 14, 32])


def test_random_depends_on_the_seed_alone(model: keras.Model) -> None:
    assert scores(model, "random", 3).tolist() == scores(model, "random", 3).tolist()
    assert scores(model, "random", 3).tolist() != scores(model, "random", 4).tolist()


def test_the_weights_are_not_changed(model: keras.Model) -> None:
    before = values_of(model)
    for criterion in ("l1", "l2", "bn_scale", "taylor", "geometric_median", "random"):
        scores(model, criterion)
    for path, value in values_of(model).items():
        np.testing.assert_array_equal(value, before[path])
