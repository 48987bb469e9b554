"""MNIST and Fashion-MNIST, which share the IDX format; on files written in that format."""

import gzip
import struct

import keras
import numpy as np
import pytest

from netopt_cli.data import fashion_mnist, mnist
from netopt_cli.errors import DataError

RNG = np.random.default_rng(0)
X = {
    split: RNG.integers(0, 256, (n, 28, 28), np.uint8) for split, n in (("train", 40), ("t10k", 20))
}
Y = {split: (np.arange(len(x)) % 10).astype(np.uint8) for split, x in X.items()}
LOADERS = [mnist, fashion_mnist]


def idx(array):
    return (
        bytes((0, 0, 8, array.ndim))
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


@pytest.fixture(params=["raw", "gz"])
def folder(tmp_path, request):
    for split in ("train", "t10k"):
        for kind, array in (("images-idx3", X[split]), ("labels-idx1", Y[split])):
            name, content = f"{split}-{kind}-ubyte", idx(array)
            if request.param == "gz":
                name, content = f"{name}.gz", gzip.compress(content)
            (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("loader", LOADERS)
def test_the_original_files_are_read(loader, folder):
    data = loader.load(0, path=str(folder))
    assert data.shape == (28, 28, 1)
    assert data.classes == len(data.class_names) == 10
    assert (len(data.train), len(data.validation)) == (36, 4)
    np.testing.assert_array_equal(data.test.x[..., 0], X["t10k"])
    np.testing.assert_array_equal(data.test.y, Y["t10k"])


@pytest.mark.parametrize("loader", LOADERS)
def test_without_a_path_keras_is_asked(loader, monkeypatch):
    module = getattr(keras.datasets, loader.__name__.rsplit(".", 1)[-1])
    monkeypatch.setattr(
        module, "load_data", lambda: ((X["train"], Y["train"]), (X["t10k"], Y["t10k"]))
    )
    np.testing.assert_array_equal(loader.load(0).test.y, Y["t10k"])


@pytest.mark.parametrize("loader", LOADERS)
def test_offline_says_what_where_and_how_by_hand(loader, monkeypatch, tmp_path):
    def fail():
        raise Exception("URL fetch failure on https://example.org")

    module = getattr(keras.datasets, loader.__name__.rsplit(".", 1)[-1])
    monkeypatch.setattr(module, "load_data", fail)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"Could not get .*MNIST.*URL fetch.*data\.path=") as caught:
        loader.load(0)
    assert str(tmp_path) in str(caught.value)


def test_damaged_and_missing_files_are_named(tmp_path):
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    with pytest.raises(DataError, match=r"No such file: .*train-images-idx3-ubyte"):
        mnist.load(0, path=str(tmp_path))
    images.write_bytes(idx(X["train"])[:-1])
    with pytest.raises(DataError, match="is damaged: its header says 31360 values, it has 31359"):
        mnist.load(0, path=str(tmp_path))
    images.write_bytes(idx(X["train"]))
    labels.write_bytes(b"\0\0\x0d\x01junk")
    with pytest.raises(DataError, match="train-labels-idx1-ubyte is not an IDX file"):
        mnist.load(0, path=str(tmp_path))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(Y["train"]))[:-12])
    with pytest.raises(DataError, match=r"Cannot read .*labels-idx1-ubyte\.gz"):
        mnist.load(0, path=str(tmp_path))


def test_a_missing_folder_gets_the_nearest_one(tmp_path):
    (tmp_path / "mnist").mkdir()
    with pytest.raises(DataError, match=r"No such folder: .*minst\. Did you mean 'mnist'"):
        mnist.load(0, path=str(tmp_path / "minst"))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"path must be a folder\. Received: the file"):
        mnist.load(0, path=str(tmp_path / "file"))
