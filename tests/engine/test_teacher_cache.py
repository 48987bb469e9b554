"""Teachers that runs share: the same training finds them, any other does not."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from netopt_cli.augment import augmentation
from netopt_cli.dataset import Dataset
from netopt_cli.engine.settings import TrainSettings
from netopt_cli.engine.teacher_cache import KeptTeacher

SETTINGS = TrainSettings(epochs=2)


def network(seed: int = 0, units: int = 3) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4, 4, 1), name="input")
    x = keras.layers.Flatten(name="flatten")(inputs)
    return keras.Model(inputs, keras.layers.Dense(units, name="logits")(x), name="net")


def test_a_kept_teacher_is_found_with_its_trained_weights(
    blobs_data: Dataset, tmp_path: Path
) -> None:
    first = network()
    place = KeptTeacher(tmp_path / "teachers", first, blobs_data, SETTINGS, 0)
    assert not place.restore()
    first.set_weights([w + 1.0 for w in first.get_weights()])  # It trains.
    place.save()
    second = network()
    again = KeptTeacher(tmp_path / "teachers", second, blobs_data, SETTINGS, 0)
    assert again.path == place.path and again.restore()
    for own, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(own, other)
    assert [path.suffix for path in (tmp_path / "teachers").iterdir()] == [".keras"]


@pytest.mark.parametrize("what", ["seed", "epochs", "weights", "arch", "samples", "augment"])
def test_whatever_decides_on_the_weights_decides_on_the_place(
    what: str, blobs_data: Dataset, tmp_path: Path
) -> None:
    model, data, settings, seed = network(), blobs_data, SETTINGS, 0
    place = KeptTeacher(tmp_path, model, data, settings, seed).path
    if what == "seed":
        seed = 1
    elif what == "epochs":
        settings = TrainSettings(epochs=3)
    elif what == "weights":
        model = network(seed=1)
    elif what == "arch":
        model = network(units=4)
    elif what == "samples":
        data = replace(data, train=data.train.take(np.arange(100)))
    else:
        data = replace(data, augment=augmentation(shift_fraction=0.5))
    assert KeptTeacher(tmp_path, model, data, settings, seed).path != place
