"""Attacks and what they leave, the signs of gradient masking, corruptions, calibration, AUROC."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from stage_bench import Bench

from netopt_cli.contracts import Network, Timing
from netopt_cli.dataset import ArraySource, Dataset
from netopt_cli.errors import ConfigError
from netopt_cli.graph.attacks import ball_of
from netopt_cli.measure.attacking import Attack, Samples, check_attacks, unattacked
from netopt_cli.measure.calibration import (
    auroc,
    expected_calibration_error,
    max_softmax,
    negative_energy,
    negative_log_likelihood,
)
from netopt_cli.measure.corruptions import SEVERITIES, corrupt, corruptions_of
from netopt_cli.measure.measurement import export_network
from netopt_cli.measure.robustness import Robustness
from netopt_cli.measure.runtime import LitertRunner


@pytest.fixture(scope="module")
def trained(blobs_data: Dataset) -> keras.Model:
    bench = Bench(blobs_data)
    return bench.fit(bench.fresh(), epochs=8).model


@pytest.fixture(scope="module")
def samples(blobs_data: Dataset) -> Samples:
    return Samples(blobs_data.normalization.numpy(blobs_data.test.x), blobs_data.test.y)


def checks_of(model: keras.Model, data: Dataset, samples: Samples) -> dict[str, bool]:
    ball = ball_of(data, 0.2)
    attack = Attack(ball, steps=10, step_size=0.05, restarts=1)
    found = check_attacks(
        model,
        samples,
        attack,
        clean=unattacked(model, samples),
        fgsm=Attack(ball, steps=1, step_size=0.2, restarts=0)(model, samples, 0),
        pgd=attack(model, samples, 0),
        checked=60,
        seed=0,
    )
    return {check.name: check.passed for check in found}


def test_an_attack_stays_in_its_ball_and_more_of_it_does_more(
    trained: keras.Model, blobs_data: Dataset, samples: Samples
) -> None:
    accuracies = [unattacked(trained, samples).accuracy]
    for epsilon in (0.05, 0.2, 0.5):
        attack = Attack(ball_of(blobs_data, epsilon), 10, epsilon / 4, restarts=1)
        attacked = attack(trained, samples, seed=0)
        assert np.abs(attacked.x - samples.x).max() <= epsilon + 1e-6
        assert attacked.x.min() >= 0 and attacked.x.max() <= 1
        accuracies.append(attacked.accuracy)
        right = trained.predict(attacked.x, verbose=0).argmax(-1) == samples.y
        np.testing.assert_array_equal(right, attacked.correct)
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > 0.9 and accuracies[-1] < 0.1


def test_the_worst_restart_counts(
    trained: keras.Model, blobs_data: Dataset, samples: Samples
) -> None:
    once = Attack(ball_of(blobs_data, 0.18), steps=1, step_size=0.05, restarts=1)
    single = once(trained, samples, seed=0)
    several = replace(once, restarts=6)(trained, samples, seed=0)
    assert several.accuracy <= single.accuracy and several.loss > single.loss
    assert not (several.correct & ~single.correct).any()


def test_a_plain_network_passes_the_checks(
    trained: keras.Model, blobs_data: Dataset, samples: Samples
) -> None:
    assert all(checks_of(trained, blobs_data, samples).values())


def test_masked_gradients_are_found(
    trained: keras.Model, blobs_data: Dataset, samples: Samples
) -> None:
    """A network that rounds what it sees has no slope, and is no more robust for it."""
    rounded = keras.layers.Lambda(lambda x: keras.ops.round(x * 32) / 32)
    inputs = keras.Input((4, 4, 1))
    masked = keras.Model(inputs, trained(rounded(inputs)))
    assert unattacked(masked, samples).accuracy > 0.9
    checks = checks_of(masked, blobs_data, samples)
    assert not checks["gradients reach the input"]
    assert not checks["without bounds nothing is left"]


def test_a_network_bent_against_one_step_is_found(
    trained: keras.Model, blobs_data: Dataset, samples: Samples
) -> None:
    """At the samples themselves the slope points the wrong way."""
    ball = ball_of(blobs_data, 0.2)
    checks = {
        check.name: check
        for check in check_attacks(
            trained,
            samples,
            Attack(ball, steps=1, step_size=1e-4, restarts=1),
            clean=unattacked(trained, samples),
            fgsm=Attack(ball, steps=5, step_size=0.1, restarts=0)(trained, samples, 0),
            pgd=unattacked(trained, samples),
            checked=60,
            seed=0,
        )
    }
    assert not checks["PGD is not weaker than FGSM"].passed
    assert not checks["the loss rises under attack"].passed
    assert "FGSM" in checks["PGD is not weaker than FGSM"].found


def test_the_file_is_run_on_the_attacked_samples(trained: keras.Model, blobs_data: Dataset) -> None:
    network = Network(trained)
    _, content = export_network(network, blobs_data)
    measured = Robustness(epsilon=0.2, steps=5).on(blobs_data, seed=0)(
        network, LitertRunner(content, Timing())
    )
    assert measured.samples == 60
    assert (measured.clean, measured.fgsm, measured.pgd) == pytest.approx(
        (measured.network_clean, measured.network_fgsm, measured.network_pgd), abs=0.02
    )
    assert measured.pgd <= measured.fgsm + 0.02 < measured.clean
    by_kind = measured.details["accuracy_by_corruption"]
    assert measured.corrupted == pytest.approx(np.mean(list(by_kind.values())))
    assert by_kind["gaussian_noise"][0] >= by_kind["gaussian_noise"][4]
    assert measured.sound is True and len(measured.checks) == 5
    assert 0 <= measured.ece <= 1 and 0 <= measured.auroc_max_softmax <= 1


def test_another_data_set_can_be_the_foreign_one(blobs_data: Dataset) -> None:
    def others(seed: int) -> Dataset:
        dark = ArraySource(np.zeros((30, 4, 4, 1), np.uint8), np.zeros(30, np.int32))
        return Dataset(**vars(blobs_data) | {"test": dark})

    probe = Robustness(out_of_distribution=others).on(blobs_data, seed=0)
    assert probe.foreign_kind == "blobs"
    assert probe.foreign.shape == (30, 4, 4, 1) and not probe.foreign.any()
    wrong = Dataset(**vars(blobs_data) | {"shape": (5, 5, 1), "name": "wide"})
    with pytest.raises(ConfigError, match="wide with"):
        Robustness(out_of_distribution=lambda seed: wrong).on(blobs_data, seed=0)


@pytest.mark.parametrize("name", corruptions_of((9, 9, 2)))
def test_corruptions_grow_with_severity_and_stay_in_range(name: str) -> None:
    x = np.random.default_rng(0).uniform(0, 1, (40, 9, 9, 2)).astype(np.float32)
    x[:, 2:6, 3:7] = 1.0
    distances = []
    for severity in range(1, SEVERITIES + 1):
        corrupted = corrupt(x, name, severity, seed=0)
        assert corrupted.shape == x.shape and corrupted.dtype == np.float32
        assert corrupted.min() >= 0 and corrupted.max() <= 1
        np.testing.assert_array_equal(corrupted, corrupt(x, name, severity, seed=0))
        distances.append(float(np.abs(corrupted - x).mean()))
    assert distances[0] > 0 and distances == sorted(distances)


def test_vectors_have_the_corruptions_that_need_no_image() -> None:
    assert set(corruptions_of((7,))) == {
        "gaussian_noise", "shot_noise", "impulse_noise", "contrast", "brightness",
    }  # fmt: skip
    assert corrupt(np.full((3, 7), 0.5, np.float32), "brightness", 1, 0).mean() == pytest.approx(
        0.55
    )


def test_calibration_error_of_known_confidences() -> None:
    """Confidence 0.8 everywhere: right 8 times in 10 is calibrated, always right is 0.2 off."""
    logits = np.tile(np.log([0.8, 0.2]), (10, 1))
    labels = np.array([0] * 8 + [1] * 2)
    assert expected_calibration_error(logits, labels) == pytest.approx(0.0, abs=1e-9)
    assert expected_calibration_error(logits, np.zeros(10, int)) == pytest.approx(0.2)
    wanted = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
    assert negative_log_likelihood(logits, labels) == pytest.approx(wanted)


def test_scores_tell_foreign_samples() -> None:
    own, foreign = np.array([[5.0, 0.0], [0.0, 4.0]]), np.array([[0.1, 0.0], [1.0, 1.1]])
    assert auroc(max_softmax(own), max_softmax(foreign)) == 1.0
    assert auroc(max_softmax(own), max_softmax(own)) == 0.5
    assert negative_energy(np.array([[1000.0, 0.0]]))[0] == pytest.approx(1000.0)
