"""What tasks ask of data, and how they compute their figures."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from netopt_cli.assembly import assemble
from netopt_cli.boxes import Anchors, average_precision, best_of, boxes_from, offsets_to, overlaps
from netopt_cli.dataset import Dataset
from netopt_cli.errors import DataError
from netopt_cli.task.anomaly import Anomaly
from netopt_cli.task.detection import Detection
from netopt_cli.task.segmentation import Segmentation
from netopt_cli.task.tagging import Tagging
from netopt_cli.task.verification import Verification, equal_error_rate, pairs
from netopt_cli.tasks import Task


def data_of(task: Task, y: Any, shape: tuple[int, ...] = (8, 8, 1), **splits: Any) -> Dataset:
    y = np.asarray(y)
    x = np.random.default_rng(0).integers(0, 256, (len(y), *shape), np.uint8)
    return assemble("made", train=(x, y), seed=0, task=task, **splits)


def losses(task: Task, labels: Any, outputs: Any, count: int) -> np.ndarray:
    outputs = tf.constant(outputs, tf.float32)
    y = task.targets(tf.zeros((len(outputs), 1)), tf.constant(labels), count)
    return task.losses(y, outputs).numpy()


# Anomalies


def test_anomalies_are_left_out_of_training_alone() -> None:
    data = data_of(Anomaly(normal_classes=(1, 2)), np.arange(100) % 4)
    assert not data.train.y.any()
    for split in (data.validation, data.test):
        assert set(split.y.tolist()) == {0, 1}
    assert len(data.train) == 36  # half of 72
    assert data.classes == 64


@pytest.mark.parametrize(
    ("task", "y", "message"),
    [
        (Anomaly(), np.arange(40) % 3, r"task.normal_classes=\[0,1\]. Received: 2"),
        (Anomaly(normal_classes=(7,)), np.arange(40) % 3, "Received: 7"),
        (Anomaly(), np.zeros(40), "Received: normal samples alone"),
        (Anomaly(), np.ones(40), "anomalies alone|has none"),
    ],
)
def test_anomalies_need_both_kinds(task: Task, y: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data_of(task, y)


def test_auroc_is_of_the_error_and_needs_both_kinds() -> None:
    task = Anomaly()
    scores = task.scores(np.array([0, 0, 1, 1]), np.zeros((4, 2)), np.array([0.1, 0.3, 0.2, 0.4]))
    assert scores["auroc"] == 0.75
    assert np.isnan(task.scores(np.zeros(3), np.zeros((3, 2)), np.arange(3.0))["auroc"])


# Pairs


def test_pairs_are_of_one_class_every_second_time() -> None:
    y = np.array([0, 0, 0, 1, 1, 2])
    first, second, same = pairs(y, 2000, 0)
    assert (first != second).all()
    np.testing.assert_array_equal(y[first] == y[second], same)
    assert same.mean() == 0.5
    together = {tuple(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    assert len(together) == 6 * 5, "every pair can come"


def test_test_pairs_are_of_the_classes_held_out() -> None:
    y = np.arange(60) % 3
    x = np.tile(np.uint8(10 * y)[:, None, None, None], (1, 4, 4, 1))
    task = Verification(pairs_a_sample=2, held_out_classes=(1, 2))
    with pytest.raises(DataError, match="of 1 classes in the train split"):
        assemble("made", train=(x, y), seed=0, task=task)
    task = replace(task, held_out_classes=(2,))
    with pytest.raises(DataError, match="of 1 classes in the test split"):
        assemble("made", train=(x, y), seed=0, task=task)
    y, x = (
        np.arange(120) % 4,
        np.tile(np.uint8(np.arange(120) % 4)[:, None, None, None], (1, 4, 4, 1)),
    )
    data = assemble("made", train=(x, y), seed=0, task=replace(task, held_out_classes=(2, 3)))
    assert data.shape == (2, 4, 4, 1) and data.classes == 1
    assert set(np.unique(data.train.x)) == set(np.unique(data.validation.x)) == {0, 1}
    assert set(np.unique(data.test.x)) == {2, 3}
    again = assemble("made", train=(x, y), seed=5, task=replace(task, held_out_classes=(2, 3)))
    np.testing.assert_array_equal(data.test.x, again.test.x)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [([0, 1, 2, 3], 0.0), ([3, 2, 1, 0], 1.0), ([0, 2, 1, 3], 0.5), ([1, 1, 1, 1], 0.5)],
)
def test_equal_error_rate(said: list[float], wanted: float) -> None:
    assert equal_error_rate(np.array([0, 0, 1, 1]), np.array(said, float)) == wanted


# Pixels and steps


def test_positions_without_a_label_do_not_count() -> None:
    task = Segmentation()
    labels = task.labels("train", np.uint8([[[0, 1], [255, 1]]]))
    assert labels.tolist() == [[[0, 1], [-1, 1]]]
    outputs = np.zeros((1, 2, 2, 2), np.float32)
    outputs[0, 0, 0] = outputs[0, 1, 0] = [9, 0]
    before = losses(task, labels, outputs, 2)
    outputs[0, 1, 0] = [0, 9]  # of the pixel that does not count
    np.testing.assert_allclose(losses(task, labels, outputs, 2), before)
    np.testing.assert_allclose(before, 2 * np.log(2) / 3, rtol=1e-3)
    scores = task.scores(labels, task.answers(outputs), before)
    assert scores == {"mean_iou": pytest.approx((1 / 3 + 0) / 2), "pixel_accuracy": 1 / 3}


def test_a_sample_without_any_label_costs_nothing() -> None:
    labels = np.full((1, 3), -1, np.int32)
    assert losses(Tagging(), labels, np.ones((1, 3, 2)), 2) == 0


def test_labels_of_positions_fit_the_samples() -> None:
    with pytest.raises(DataError, match=r"one for each position .*\(samples, 8, 8\).*\(20, 4, 8\)"):
        data_of(Segmentation(), np.arange(640).reshape(20, 4, 8) % 2)
    with pytest.raises(DataError, match=r"must be \(samples, height, width\)"):
        data_of(Segmentation(), np.arange(20) % 2)
    with pytest.raises(DataError, match=r"must be \(samples, steps\)"):
        data_of(Tagging(), np.arange(20) % 2)


# Boxes


def test_offsets_lead_back_to_the_boxes() -> None:
    anchors = Anchors((4, 8), (2.0, 3.0), (0.5, 1.0)).boxes(16, 24)
    assert anchors.shape == ((4 * 6 + 2 * 3) * 4, 4)
    np.testing.assert_allclose((anchors[1, 2:] - anchors[1, :2]) * [24, 16], [8, 8], rtol=1e-5)
    low = np.random.default_rng(0).uniform(0, 0.5, (len(anchors), 2))
    boxes = np.concatenate([low, low + 0.3], axis=1).astype(np.float32)
    found = boxes_from(offsets_to(tf.constant(boxes), anchors).numpy(), anchors)
    np.testing.assert_allclose(found, boxes, atol=1e-5)


def test_overlaps_and_the_best_of_many() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]], float)
    np.testing.assert_allclose(overlaps(boxes[:1], boxes), [[1, 1 / 3, 0]])
    scores = np.array([0.5, 0.9, 0.1])
    assert best_of(boxes, scores, 0.5).tolist() == [1, 0, 2]
    assert best_of(boxes, scores, 0.3).tolist() == [1, 2]
    assert best_of(boxes[:0], scores[:0], 0.3).tolist() == []


def test_average_precision_by_hand() -> None:
    wanted = [np.array([[0, 0, 1, 1], [2, 2, 3, 3]], float), np.array([[0, 0, 1, 1]], float)]
    # Right, then wrong (a second box for the same object), then right: recall 1/3, 1/3, 2/3.
    found = [wanted[0][[0, 0]], wanted[1]]
    scores = [np.array([0.9, 0.8]), np.array([0.7])]
    by_hand = (34 * 1 + 33 * 2 / 3) / 101  # recalls 0 … 0.33, 0.34 … 0.66, none beyond
    assert average_precision(found, scores, wanted, 0.5) == pytest.approx(by_hand)
    nothing = [np.zeros((0, 4))] * 2
    assert average_precision(nothing, [np.zeros(0)] * 2, wanted, 0.5) == 0


def test_perfect_outputs_of_a_detector_find_every_object() -> None:
    y = np.full((6, 2, 5), -1, np.float32)
    y[:, 0] = [1, 0.1, 0.2, 0.4, 0.5]
    y[:3, 1] = [0, 0.5, 0.5, 0.9, 0.8]
    data = data_of(Detection(strides=(4,), sizes=(2.0,)), y, (16, 16, 1), validation_fraction=0.4)
    task = data.task
    assert data.classes == 6 and data.class_names == ("0", "1")
    labels = tf.constant(data.train.y)
    targets = task.targets(tf.zeros((len(labels), 1)), labels, data.classes).numpy()
    assert targets.shape == (len(labels), 16, 8)
    assert targets[..., 6].sum() >= (data.train.y[..., 0] >= 0).sum(), "an anchor for each object"
    outputs = np.concatenate([20 * targets[..., :2] - 10, targets[..., 2:6]], axis=-1)
    assert task.losses(tf.constant(targets), tf.constant(outputs)).numpy().max() < 1e-3
    scores = task.scores(data.train.y, task.answers(outputs), np.zeros(len(labels)))
    assert scores == {"map_50": pytest.approx(1), "map_50_95": pytest.approx(1)}
    said = task.decoded(outputs, data.class_names)[0]["objects"]
    np.testing.assert_allclose(
        sorted(one["box"] for one in said),
        sorted(row[1:].tolist() for row in data.train.y[0] if row[0] >= 0), atol=1e-3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 0.5, 0.5, 0.4, 0.9], "left < right"),
        ([0, 0.5, 0.5, 1.2, 0.9], "as fractions of the image"),
        ([0.5, 0.1, 0.1, 0.2, 0.2], "whole numbers"),
    ],
)
def test_boxes_are_checked(row: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        data_of(Detection(), np.float32([[row]] * 10), (32, 32, 1))
