import numpy as np

from netopt_cli.measure.confusion import MOST_CLASSES, confusion


def test_samples_are_counted_by_class_and_prediction():
    labels = np.array([0, 0, 1, 2, 2, 2], np.int32)
    predicted = np.array([0, 1, 1, 2, 0, 0])
    found = confusion(labels, predicted, ("a", "b", "c"))
    assert found == {"classes": ["a", "b", "c"], "counts": [[1, 1, 0], [0, 1, 0], [2, 0, 1]]}


def test_many_classes_have_no_matrix():
    names = [str(number) for number in range(MOST_CLASSES + 1)]
    assert confusion(np.array([0]), np.array([0]), names) is None
