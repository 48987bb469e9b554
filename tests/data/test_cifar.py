"""CIFAR-10 and CIFAR-100, on files written in the format of their binary versions."""

import keras
import numpy as np
import pytest

from netopt_cli.data import cifar10, cifar100
from netopt_cli.errors import DataError

RNG = np.random.default_rng(0)


def images(n):
    return RNG.integers(0, 256, (n, 32, 32, 3), np.uint8)


def records(x, *labels):
    columns = [np.asarray(label, np.uint8)[:, None] for label in labels]
    return np.concatenate([*columns, x.transpose(0, 3, 1, 2).reshape(len(x), -1)], axis=1).tobytes()


def test_the_binary_version_of_cifar10(tmp_path):
    x, labels = images(60), np.arange(60) % 10
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    for index, name in enumerate(names):
        part = slice(10 * index, 10 * index + 10)
        (tmp_path / name).write_bytes(records(x[part], labels[part]))
    data = cifar10.load(0, path=str(tmp_path), validation_fraction=0.2)
    assert data.shape == (32, 32, 3)
    assert data.class_names[3] == "cat"
    assert (len(data.train), len(data.validation)) == (40, 10)
    np.testing.assert_array_equal(data.test.x, x[50:])
    np.testing.assert_array_equal(data.test.y, labels[50:])
    (tmp_path / names[2]).write_bytes(b"short")
    with pytest.raises(DataError, match=r"records of 3073 bytes.*data_batch_3\.bin of 5 bytes"):
        cifar10.load(0, path=str(tmp_path))
    (tmp_path / names[2]).unlink()
    with pytest.raises(DataError, match=r"No such file: .*data_batch_3\.bin"):
        cifar10.load(0, path=str(tmp_path))


@pytest.mark.parametrize(
    ("labels", "classes", "name"), [("fine", 100, "apple"), ("coarse", 20, "aquatic_mammals")]
)
def test_the_binary_version_of_cifar100(tmp_path, labels, classes, name):
    x, fine = images(220), np.arange(220) % 100
    coarse = fine % 20
    (tmp_path / "train.bin").write_bytes(records(x[:200], coarse[:200], fine[:200]))
    (tmp_path / "test.bin").write_bytes(records(x[200:], coarse[200:], fine[200:]))
    data = cifar100.load(0, path=str(tmp_path), labels=labels)
    assert data.classes == classes
    assert data.class_names[0] == name
    np.testing.assert_array_equal(data.test.x, x[200:])
    np.testing.assert_array_equal(data.test.y, {"fine": fine, "coarse": coarse}[labels][200:])


def test_without_a_path_keras_is_asked(monkeypatch):
    x, labels = images(100), (np.arange(100) % 10)[:, None]  # Keras gives (n, 1)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: ((x, labels), (x, labels)))
    assert cifar10.load(0).test.y.shape == (100,)
    asked = []

    def load_data(label_mode):
        asked.append(label_mode)
        return (x, labels), (x, labels)

    monkeypatch.setattr(keras.datasets.cifar100, "load_data", load_data)
    assert cifar100.load(0, labels="coarse").classes == 20
    assert asked == ["coarse"]


def test_offline_says_how_to_get_it_by_hand(monkeypatch):
    def fail(**_):
        raise ValueError("incomplete download")

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fail)
    monkeypatch.setattr(keras.datasets.cifar100, "load_data", fail)
    for loader in (cifar10, cifar100):
        with pytest.raises(DataError, match=r"CIFAR.*incomplete download.*binary\.tar\.gz"):
            loader.load(0)
