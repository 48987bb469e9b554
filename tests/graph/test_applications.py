"""Every family of keras.applications is cut, and computes what the masked one does."""

import keras
import pytest
from surgery_check import check

FAMILIES = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 71,
}
NARROW = {"MobileNet": {"alpha": 0.25}, "MobileNetV2": {"alpha": 0.35}}
QUICK = {"MobileNet", "MobileNetV3Small"}


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=() if f in QUICK else pytest.mark.slow) for f in sorted(FAMILIES)],
)
def test_surgery_on(family):
    size = FAMILIES[family]
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
