import numpy as np

from netopt_cli.data import digits


def test_digits_are_complete_and_scaled_to_bytes():
    data = digits.load(0)
    assert data.name == "digits"
    assert data.shape == (8, 8, 1)
    assert data.classes == 10
    assert (len(data.train), len(data.validation), len(data.test)) == (1294, 144, 359)
    assert data.train.x.dtype == np.uint8
    assert data.train.x.max() == 255
    assert data.normalization.numpy(data.train.x).max() == 1.0
    assert data.augment is None


def test_the_test_split_does_not_follow_the_seed():
    first, second = digits.load(0), digits.load(1)
    np.testing.assert_array_equal(first.test.x, second.test.x)
    assert first.fingerprint == second.fingerprint
    assert not np.array_equal(first.train.x, second.train.x)


def test_common_parameters_arrive():
    data = digits.load(
        0,
        validation_fraction=0.5,
        normalize="none",
        augment={"shift_fraction": 0.1},
        train_limit=100,
    )
    assert len(data.train) == 100
    assert len(data.validation) == 719
    assert data.normalization.numpy(data.train.x).max() == 255
    assert data.augment is not None
