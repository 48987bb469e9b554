from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from netopt_cli.data import npz_fields
from netopt_cli.errors import ConfigError, DataError
from netopt_cli.inputs import Kind

FIELDS: dict[str, Kind] = {"image": "values", "age": "values", "text": "tokens", "who": "ids"}
COUNT = 12
RANDOM = np.random.default_rng(0)
ARRAYS = {
    "image": RANDOM.integers(0, 256, (COUNT, 3, 4), np.uint8),
    "age": RANDOM.normal(size=(COUNT, 2)),
    "text": RANDOM.integers(2, 9, (COUNT, 3)),
    "who": RANDOM.integers(0, 5, COUNT),
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write_file(**changes: np.ndarray) -> str:
        arrays = {f"{name}_{split}": x for name, x in ARRAYS.items() for split in ("train", "test")}
        y = {f"y_{split}": np.arange(COUNT) % 2 for split in ("train", "test")}
        np.savez(tmp_path / "own.npz", **(arrays | y | changes))
        return str(tmp_path / "own.npz")

    return write_file


def test_the_fields_arrive_as_they_were(write: Callable[..., str]) -> None:
    data = npz_fields.load(0, path=write(), fields=FIELDS)
    assert data.shape == (12 + 2 + 3 + 1,) and data.inputs.dtype == "int32"
    x, _ = next(data.normalized_batches(data.test, COUNT))
    found = data.inputs.parts(keras.ops.convert_to_tensor(x))
    np.testing.assert_allclose(found["image"][..., 0], ARRAYS["image"] / 255, rtol=1e-6)
    np.testing.assert_allclose(found["age"], ARRAYS["age"], atol=1e-4)
    np.testing.assert_array_equal(found["text"], ARRAYS["text"])
    np.testing.assert_array_equal(found["who"][:, 0], ARRAYS["who"])


def test_what_training_has_no_token_for_is_unknown(write: Callable[..., str]) -> None:
    data = npz_fields.load(0, path=write(text_test=np.full((COUNT, 3), 50)), fields=FIELDS)
    assert (data.test.x[:, 14:17] == 1).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"age_test": np.zeros((COUNT, 3))}, r"'age_test' must have samples of \(2,\).*\(3,\)"),
        ({"age_train": np.full((COUNT, 2), np.nan)}, "'age_train' must be finite"),
        ({"age_train": np.zeros((COUNT, 2), int)}, "must be uint8 or float"),
        ({"text_train": -ARRAYS["text"]}, "whole numbers from 0"),
        ({"who_test": np.arange(3)}, "as many samples. Received: .*'who': 3"),
    ],
)
def test_what_is_wrong_is_named(
    write: Callable[..., str], changes: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        npz_fields.load(0, path=write(**changes), fields=FIELDS)


def test_one_field_is_for_npz(write: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match="for one use data=npz"):
        npz_fields.load(0, path=write(), fields={"image": "values"})
    with pytest.raises(DataError, match=r"has no array 'sound_train'.* image_train"):
        npz_fields.load(0, path=write(), fields={"image": "values", "sound": "values"})
