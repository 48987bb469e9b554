"""Every family of keras.applications is cut, and computes what the masked one does."""

import keras
import pytest
from surgery_check import check

from benchmarks.applications import SIZES

NARROW = {"MobileNet": {"alpha": 0.25}, "MobileNetV2": {"alpha": 0.35}}
QUICK = {"MobileNet", "MobileNetV3Small"}


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=() if f in QUICK else pytest.mark.slow) for f in sorted(SIZES)],
)
def test_surgery_on(family):
    size = SIZES[family]
    model = getattr(keras.applications, family)(
        weights=None,
        classes=10,
        input_shape=(size, size, 3),
        classifier_activation=None,
        **NARROW.get(family, {}),
    )
    graph, smaller = check(model)
    reasons = [reason for _, reason in graph.protected]
    assert not [reason for reason in reasons if "no rule" in reason]
    assert smaller.count_params() < 0.7 * model.count_params()
