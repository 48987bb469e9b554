import numpy as np
import pytest

from netopt_cli.data import npz
from netopt_cli.errors import DataError

X = np.random.default_rng(0).integers(0, 256, (40, 6, 6), np.uint8)
Y = np.arange(40) % 4
ARRAYS = {"x_train": X, "y_train": Y, "x_test": X[:8], "y_test": Y[:8]}


@pytest.fixture
def write(tmp_path):
    def write_file(name="mine.npz", **changes):
        arrays = {key: value for key, value in {**ARRAYS, **changes}.items() if value is not None}
        np.savez(tmp_path / name, **arrays)
        return str(tmp_path / name)

    return write_file


def test_the_arrays_arrive(write):
    data = npz.load(0, path=write())
    assert data.shape == (6, 6, 1)
    assert data.classes == 4
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 8)
    np.testing.assert_array_equal(data.test.x[..., 0], X[:8])


@pytest.mark.parametrize("split", ["validation", "val"])
def test_a_validation_split_is_used_when_there_is_one(write, split):
    data = npz.load(0, path=write(**{f"x_{split}": X[:12], f"y_{split}": Y[:12]}))
    assert (len(data.train), len(data.validation)) == (40, 12)
    with pytest.raises(DataError, match=f"has no array 'y_{split}'"):
        npz.load(0, path=write(**{f"x_{split}": X[:12]}))


def test_class_names_and_common_parameters_arrive(write):
    data = npz.load(
        0,
        path=write(),
        class_names=["a", "b", "c", "d", "e"],
        validation_fraction=0.5,
        normalize="standardize",
        augment={"flip_horizontal": True},
        train_limit=8,
    )
    assert data.class_names == ("a", "b", "c", "d", "e")
    assert (len(data.train), len(data.validation)) == (8, 20)
    assert data.augment is not None
    assert data.normalization.numpy(data.train.x).mean() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"y_train": None, "labels": Y},
            "no array 'y_train'. It has: x_train, x_test, y_test, lab",
        ),
        ({"x_test": None, "x_tset": X[:8]}, "no array 'x_test'. It has: .*x_tset"),
        ({"x_train": X.astype(object)}, "'x_train' in .* holds pickled objects.*refused"),
        ({"y_train": Y[:-3]}, "40 samples and 37 labels"),
        ({"x_train": np.where(X > 3, np.nan, 0.0)}, "must be finite"),
        ({"y_test": Y[:8] + 9}, r"test labels must be in 0 … 3.*Received: 12"),
    ],
)
def test_a_bad_file_gets_one_clear_message(write, changes, message):
    with pytest.raises(DataError, match=message) as caught:
        npz.load(0, path=write(**changes))
    assert "\n" not in str(caught.value)


def test_a_missing_file_gets_the_nearest_one(write, tmp_path):
    write("mnist10k.npz")
    with pytest.raises(DataError, match=r"No such file: .*Did you mean 'mnist10k\.npz'"):
        npz.load(0, path=str(tmp_path / "mnist1ok.npz"))
    with pytest.raises(DataError, match=r"path must be a file\. Received: the folder"):
        npz.load(0, path=str(tmp_path))


def test_what_is_no_npz_is_refused(write, tmp_path):
    other = tmp_path / "other.npz"
    other.write_bytes(b"x_train")
    with pytest.raises(DataError, match=r"other\.npz is not an \.npz file"):
        npz.load(0, path=str(other))
    np.save(tmp_path / "single.npy", X)
    with pytest.raises(DataError, match=r"single\.npy is not an \.npz file"):
        npz.load(0, path=str(tmp_path / "single.npy"))


def test_a_damaged_file_is_reported(write, tmp_path):
    path = tmp_path / "mine.npz"
    write()
    content = bytearray(path.read_bytes())
    content[300:700] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(DataError, match="Cannot read 'x_train' in"):
        npz.load(0, path=str(path))
