"""Rankings: the figures by hand, the losses by hand, and what is left out of both."""

import numpy as np
import pytest
import tensorflow as tf

from netopt_cli.errors import DataError
from netopt_cli.ranking_labels import encode
from netopt_cli.task.ranking import Ranking

ITEMS = 12
WANTED = [np.array([3]), np.array([0, 5, 7])]
SEEN = [np.array([1, 2]), np.array([], int)]
LABELS = encode(WANTED, SEEN)


def scores_of(order: list[int]) -> np.ndarray:
    """Scores by which the items come in that order, the others after them."""
    scores = np.linspace(-1, -2, ITEMS)
    scores[order] = np.arange(len(order), 0, -1)
    return scores.astype(np.float32)


def test_figures_by_hand():
    outputs = np.stack([scores_of([1, 2, 4, 3]), scores_of([5, 1, 0, 2, 7])])
    found = Ranking(k=4).scores(LABELS, outputs, np.zeros(2))
    gain = 1 / np.log2([2, 3, 4, 5])
    # The first user has seen 1 and 2: of the others 4 comes first, then 3.
    second = (gain[0] + gain[2]) / gain[:3].sum()
    assert list(found) == ["ndcg_at_4", "hit_rate_at_4", "recall_at_4", "mrr_at_4"]
    assert found["ndcg_at_4"] == pytest.approx((gain[1] + second) / 2)
    assert found["hit_rate_at_4"] == 1
    assert found["recall_at_4"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["mrr_at_4"] == pytest.approx((1 / 2 + 1) / 2)
    assert list(Ranking(measure="mrr", k=1).scores(LABELS, outputs, np.zeros(2))) == [
        "mrr_at_1", "ndcg_at_1", "hit_rate_at_1", "recall_at_1",
    ]  # fmt: skip
    assert Ranking(k=1).scores(LABELS, outputs, np.zeros(2))["hit_rate_at_1"] == 0.5


def test_a_network_that_says_nothing_is_no_better_than_chance():
    random = np.random.default_rng(0)
    wanted = [random.permutation(50)[:5] for _ in range(400)]
    # Frequent items, which have low numbers, are wanted more often.
    wanted = [np.unique(np.minimum(w, random.integers(0, 50, len(w)))) for w in wanted]
    labels = encode(wanted, [np.array([], int)] * 400)
    found = Ranking().scores(labels, np.zeros((400, 50), np.float32), np.zeros(400))
    assert found["recall_at_10"] == pytest.approx(0.2, abs=0.1)


def test_sampled_candidates_are_few_and_the_same_each_time():
    random = np.random.default_rng(0)
    labels = encode([np.array([i % 200]) for i in range(300)], [np.arange(200, 210)] * 300)
    outputs = random.normal(size=(300, 500)).astype(np.float32)
    full, sampled = Ranking(), Ranking(candidates="sampled", sampled_negatives=20)
    assert full.protocol == "full ranking" and sampled.protocol == "sampled 20 (seed 0)"
    hits = sampled.scores(labels, outputs, np.zeros(300))["hit_rate_at_10"]
    assert hits == pytest.approx(10 / 21, abs=0.1)
    assert full.scores(labels, outputs, np.zeros(300))["hit_rate_at_10"] < 0.1
    assert hits == sampled.scores(labels, outputs, np.zeros(300))["hit_rate_at_10"]
    other = Ranking(candidates="sampled", sampled_negatives=20, sampling_seed=1)
    assert hits != other.scores(labels, outputs, np.zeros(300))["hit_rate_at_10"]


def losses(task: Ranking, outputs: np.ndarray) -> np.ndarray:
    y = task.targets(tf.zeros((2, 1)), tf.constant(LABELS), ITEMS)
    return task.losses(y, tf.constant(outputs)).numpy()


def test_targets():
    y = Ranking().targets(tf.zeros((2, 1)), tf.constant(LABELS), ITEMS).numpy()
    expected = np.zeros((2, ITEMS))
    expected[0, 3] = 1
    expected[0, [1, 2]] = -1
    expected[1, [0, 5, 7]] = 1
    np.testing.assert_array_equal(y, expected)


def test_the_multinomial_loss_by_hand():
    outputs = np.random.default_rng(0).normal(size=(2, ITEMS)).astype(np.float32)
    shares = np.exp(outputs)
    first = -np.log(shares[0, 3] / shares[0, [0, *range(3, ITEMS)]].sum())
    second = -np.log(shares[1, [0, 5, 7]] / shares[1].sum()).mean()
    np.testing.assert_allclose(losses(Ranking(), outputs), [first, second], rtol=1e-5)


@pytest.mark.parametrize("loss", ["bpr", "binary"])
def test_losses_with_drawn_negatives(loss):
    task = Ranking(loss=loss, negatives=2000)
    outputs = np.random.default_rng(0).normal(size=(2, ITEMS)).astype(np.float32)
    found = losses(task, outputs)
    positive, negative = outputs[1, [0, 5, 7]], np.delete(outputs[1], [0, 5, 7])
    if loss == "bpr":
        expected = np.log1p(np.exp(negative[np.newaxis] - positive[:, np.newaxis])).mean()
    else:  # so many that all others are drawn
        expected = (np.log1p(np.exp(-positive)).sum() + np.log1p(np.exp(negative)).sum()) / 3
    assert found[1] == pytest.approx(expected, rel=0.1)
    # What was seen is neither: its score does not count.
    changed = outputs.copy()
    changed[0, [1, 2]] += 1000
    mild = losses(Ranking(loss=loss, negatives=2000), changed)
    assert mild[0] == pytest.approx(found[0], rel=0.1)


@pytest.mark.parametrize("loss", ["bpr", "binary"])
def test_negatives_are_others_as_the_network_learns_and_the_same_for_the_same_network(loss):
    task = Ranking(loss=loss, negatives=1)
    outputs = np.random.default_rng(0).normal(size=(2, ITEMS)).astype(np.float32)
    assert (losses(task, outputs) == losses(task, outputs)).all()
    few = {
        tuple(np.round(losses(task, outputs + i * 1e-3) - losses(task, outputs), 2))
        for i in range(9)
    }
    assert len(few) > 2


def test_a_student_learns_what_is_likely():
    task, wanted = Ranking(), tf.constant([[1.0, 2.0, 3.0]])
    assert task.imitation(wanted + 5.0, wanted, 2.0).numpy() == pytest.approx(0, abs=1e-6)
    assert task.imitation(-wanted, wanted, 2.0).numpy() > 0.1


def test_what_is_shown_to_a_person():
    (shown,) = Ranking(k=2).decoded(np.array([[0.5, 3.0, 2.0]], np.float32), ["a", "b", "c"])
    assert shown == {"items": ["b", "c"], "scores": [3.0, 2.0]}
    assert Ranking(k=2).same(np.array([[1, 2, 3, 0.0]]), np.array([[0, 2, 3, 1.0]])) == 1.0
    assert Ranking(k=2).same(np.array([[1, 2, 3, 0.0]]), np.array([[3, 2, 1, 0.0]])) == 0.5


def test_labels_of_something_else_are_refused():
    with pytest.raises(DataError, match=r"The train labels of task=ranking.*Use data=ratings"):
        Ranking().labels("train", np.zeros(4, np.int32))
    with pytest.raises(DataError, match="one of them or more to find"):
        Ranking().labels("test", np.array([[-1, -3]], np.int32))
