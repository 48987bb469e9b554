"""A network and a data set small enough for every measurement."""

import keras
import numpy as np
import pytest

from netopt_cli.dataset import ArraySource, Dataset, Normalization

SHAPE = (8, 8, 1)
CLASSES = 4


@pytest.fixture(scope="package")
def data() -> Dataset:
    random = np.random.default_rng(0)

    def split(samples: int) -> ArraySource:
        x = random.integers(0, 256, (samples, *SHAPE)).astype(np.uint8)
        return ArraySource(x, random.integers(0, CLASSES, samples).astype(np.int32))

    return Dataset(
        name="random",
        shape=SHAPE,
        classes=CLASSES,
        class_names=tuple("abcd"),
        train=split(64),
        validation=split(48),
        test=split(700),
        normalization=Normalization(127.5, 1 / 64),
        augment=None,
        fingerprint="",
    )


@pytest.fixture(scope="package")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(6, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Dense(16, activation="relu", name="hidden")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(x))
