"""When samples leave, and how thresholds follow from validation samples."""

import numpy as np
import pytest

from netopt_cli.contracts import ExitPolicy
from netopt_cli.measure.exit_policy import NEVER, choose_thresholds, left_at, uncertainties

COSTS = np.array([10, 50, 100])


def logits_of(probabilities: list[float]) -> np.ndarray:
    return np.log(np.array(probabilities, np.float32))


def test_uncertainties_are_what_they_are_called() -> None:
    logits = logits_of([0.7, 0.2, 0.1])[None, None]
    entropy = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
    assert uncertainties("entropy", logits)[0, 0] == pytest.approx(entropy, rel=1e-5)
    assert uncertainties("confidence", logits)[0, 0] == pytest.approx(0.3, rel=1e-5)
    # Logits that are far apart give no NaN.
    assert uncertainties("entropy", np.array([[[900.0, 0.0, -900.0]]], np.float32))[0, 0] == 0


def test_patience_counts_exits_in_a_row_that_agree() -> None:
    classes = np.array([[0, 1], [0, 2], [1, 2], [1, 2]])  # (exits, samples)
    found = uncertainties("patience", np.eye(3, dtype=np.float32)[classes])
    assert found.tolist() == [[0, 0], [-1, 0], [0, -1], [-1, -2]]


def test_a_sample_leaves_at_the_first_exit_that_is_sure() -> None:
    uncertain = np.array([[0.1, 0.9, 0.9], [0.0, 0.2, 0.8]])
    assert left_at(uncertain, np.array([0.5, 0.5])).tolist() == [0, 1, 2]
    assert left_at(uncertain, np.array([NEVER, 0.5])).tolist() == [1, 1, 2]


@pytest.fixture
def outcomes() -> tuple[np.ndarray, np.ndarray]:
    """Of 1,000 samples: the surer an exit, the oftener it is right; the second one oftener."""
    random = np.random.default_rng(0)
    uncertain = random.uniform(size=(2, 1000))
    right = random.uniform(size=(2, 1000)) > uncertain ** np.array([[2], [4]])
    return uncertain, np.vstack([right, np.ones((1, 1000), bool)])


@pytest.mark.parametrize("drop", [0.5, 2.0, 10.0])
def test_the_drop_is_kept_and_more_of_it_saves_more(outcomes, drop: float) -> None:
    choice = choose_thresholds(ExitPolicy(max_drop=drop, margin=0.0), *outcomes, COSTS)
    assert choice.final_accuracy - choice.accuracy <= drop / 100 + 1e-9
    more = choose_thresholds(ExitPolicy(max_drop=2 * drop, margin=0.0), *outcomes, COSTS)
    assert more.cost < choice.cost < 1
    left = left_at(outcomes[0], choice.thresholds)
    assert COSTS[left].mean() / 100 == pytest.approx(choice.cost)


def test_a_margin_leaves_room_for_what_few_samples_hide(outcomes) -> None:
    bold = choose_thresholds(ExitPolicy(max_drop=1.0, margin=0.0), *outcomes, COSTS)
    careful = choose_thresholds(ExitPolicy(max_drop=1.0, margin=2.0), *outcomes, COSTS)
    assert careful.accuracy > bold.accuracy and careful.cost > bold.cost


def test_a_target_cost_is_reached_and_not_more(outcomes) -> None:
    choice = choose_thresholds(ExitPolicy(max_drop=None, target_cost=0.4), *outcomes, COSTS)
    assert 0.37 < choice.cost <= 0.4


def test_exits_that_are_never_right_are_never_taken(outcomes) -> None:
    uncertain, correct = outcomes
    correct = np.vstack([np.zeros((2, 1000), bool), correct[-1:]])
    choice = choose_thresholds(ExitPolicy(max_drop=0.0), uncertain, correct, COSTS)
    assert choice.thresholds.tolist() == [NEVER, NEVER] and choice.cost == 1


def test_exits_that_are_always_right_are_taken_by_all(outcomes) -> None:
    uncertain, correct = outcomes
    choice = choose_thresholds(ExitPolicy(), uncertain, np.ones_like(correct), COSTS)
    assert choice.cost == pytest.approx(0.1) and choice.accuracy == 1
