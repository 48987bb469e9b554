import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt_cli.assembly import TEST_SPLIT_SEED, assemble, grouped_choice, stratified_choice
from netopt_cli.dataset import ArraySource
from netopt_cli.errors import DataError


def toy(n=40, classes=4, shape=(3,), dtype=np.float32):
    """Samples that hold their own index, so that a split can be followed."""
    x = np.broadcast_to(np.arange(n).reshape(-1, *[1] * len(shape)), (n, *shape)).astype(dtype)
    return x, np.arange(n) % classes


def indices(source):
    return source.x.reshape(len(source), -1)[:, 0].astype(int).tolist()


@st.composite
def labels_and_fraction(draw):
    sizes = draw(st.lists(st.integers(2, 60), min_size=2, max_size=6))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    np.random.default_rng(draw(st.integers(0, 99))).shuffle(labels)
    return labels, draw(st.floats(0.05, 0.9))


@given(labels_and_fraction(), st.integers(0, 2**31))
@settings(deadline=None)
def test_a_choice_is_stratified_within_one_sample_and_reproducible(case, seed):
    labels, fraction = case
    count = round(fraction * len(labels))
    chosen = stratified_choice(labels, count, seed)
    assert len(set(chosen.tolist())) == count
    assert (np.diff(chosen) > 0).all()
    exact = np.bincount(labels) * count / len(labels)
    taken = np.bincount(labels[chosen], minlength=len(exact))
    assert (np.abs(taken - exact) <= 1).all()
    np.testing.assert_array_equal(chosen, stratified_choice(labels, count, seed))


@given(st.lists(st.integers(1, 9), min_size=2, max_size=12), st.integers(0, 99), st.integers(0, 9))
def test_groups_are_chosen_whole_and_never_all(sizes, percent, seed):
    groups = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))
    count = percent * len(groups) // 100
    chosen = grouped_choice(groups, count, seed)
    rest = np.setdiff1d(np.arange(len(groups)), chosen)
    assert len(chosen) and len(rest)
    assert not set(groups[chosen]) & set(groups[rest])
    if max(sizes) < count < len(groups) - max(sizes):
        assert abs(len(chosen) - count) <= max(sizes) / 2
    np.testing.assert_array_equal(chosen, grouped_choice(groups, count, seed))


def test_a_class_that_the_cut_off_groups_took_along_is_named():
    x, _ = toy(30)
    groups = np.arange(30) // 5
    y = np.isin(np.arange(30), grouped_choice(groups, 6, TEST_SPLIT_SEED)).astype(int)
    with pytest.raises(DataError, match="no sample of class '1' left: its groups"):
        assemble("toy", train=(x, y), groups={"train": groups}, seed=0)


def test_channels_may_have_several_axes():
    x = np.random.default_rng(0).normal(np.arange(12).reshape(4, 3), 2, (40, 5, 4, 3))
    y = np.arange(40) % 2
    for axes, shape in ((0, ()), (1, (3,)), (2, (4, 3))):
        data = assemble("toy", train=(x, y), seed=0, normalize="standardize", channel_axes=axes)
        assert np.shape(data.normalization.multiply) == shape
        ((normalized, _),) = data.normalized_batches(data.train, 40)
        others = tuple(range(4 - axes))
        np.testing.assert_allclose(normalized.mean(others), 0, atol=1e-5)
        np.testing.assert_allclose(normalized.std(others), 1, atol=1e-5)


@given(labels_and_fraction(), st.integers(0, 2**31))
@settings(deadline=None, max_examples=50)
def test_splits_are_disjoint_complete_and_reproducible(case, seed):
    labels, fraction = case
    x = np.arange(len(labels), dtype=np.float32)[:, None]
    fractions = {"validation_fraction": 0.3, "test_fraction": fraction / 2}
    try:
        data = assemble("toy", train=(x, labels), seed=seed, **fractions)
    except DataError as error:
        assert "empty" in str(error)
        return
    parts = [indices(split) for split in (data.train, data.validation, data.test)]
    assert sorted(parts[0] + parts[1] + parts[2]) == list(range(len(labels)))
    for split in (data.train, data.validation, data.test):
        np.testing.assert_array_equal(split.y, labels[indices(split)])
    again = assemble("toy", train=(x, labels), seed=seed, **fractions)
    assert parts == [indices(split) for split in (again.train, again.validation, again.test)]


def test_a_class_of_one_sample_stays_in_the_training_split():
    labels = np.array([0] * 30 + [1] * 30 + [2])
    x = np.arange(61, dtype=np.float32)[:, None]
    for seed in range(5):
        data = assemble("toy", train=(x, labels), seed=seed, validation_fraction=0.5)
        assert 2 in data.train.y


def test_the_test_split_is_the_same_for_every_seed_and_validation_is_not():
    first, second = (assemble("toy", train=toy(200), seed=seed) for seed in (0, 1))
    assert indices(first.test) == indices(second.test)
    assert indices(first.validation) != indices(second.validation)
    assert first.fingerprint == second.fingerprint


def test_given_splits_are_used_as_they_are():
    data = assemble("toy", train=toy(20), validation=toy(8), test=toy(12), seed=0)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [20, 8, 12]


def test_a_fingerprint_tells_other_data():
    x, y = toy()
    other = x.copy()
    other[7] += 1
    prints = {assemble("toy", train=(values, y), seed=0).fingerprint for values in (x, other)}
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("given", "kept"), [((28, 28), (28, 28, 1)), ((8, 8, 3), (8, 8, 3)), ((5,), (5,))]
)
def test_images_without_channels_get_one(given, kept):
    data = assemble("toy", train=toy(shape=given), seed=0)
    assert data.shape == data.test.x.shape[1:] == kept


def test_labels_come_out_as_int32_whatever_their_form():
    x, y = toy(40, 4)
    forms = [y, y[:, None], y.astype(np.float64), y.astype(np.uint8), np.eye(4)[y], y.tolist()]
    for form in forms:
        data = assemble("toy", train=(x, form), test=(x, form), seed=0)
        assert data.test.y.dtype == np.int32
        np.testing.assert_array_equal(data.test.y, y)
        assert data.classes == 4
        assert data.class_names == ("0", "1", "2", "3")


def test_floats_of_other_sizes_become_float32():
    x, y = toy(dtype=np.float64)
    assert assemble("toy", train=(x, y), seed=0).train.x.dtype == np.float32


def test_class_names_allow_a_class_without_training_samples():
    names = ["a", "b", "c", "d", "never"]
    data = assemble("toy", train=toy(), class_names=names, seed=0)
    assert data.classes == 5
    assert data.class_names == tuple(names)


def values(data):
    """All normalized training samples."""
    return np.concatenate([x for x, _ in data.normalized_batches(data.train, 64)])


def test_auto_scales_bytes_and_leaves_floats():
    x, y = toy(200, dtype=np.uint8, shape=(2, 2, 1))
    np.testing.assert_allclose(
        assemble("toy", train=(x, y), seed=0).normalization.numpy(x), x / 255.0, rtol=1e-6
    )
    floats = x.astype(np.float32)
    data = assemble("toy", train=(floats, y), seed=0)
    np.testing.assert_array_equal(data.normalization.numpy(floats), floats)
    raw = assemble("toy", train=(x, y), seed=0, normalize="none")
    np.testing.assert_array_equal(raw.normalization.numpy(x), floats)


def test_unit_maps_the_training_split_of_floats_to_0_1():
    x, y = toy(200)
    data = assemble("toy", train=(x * 3 - 50, y), seed=0, normalize="unit")
    assert values(data).min() == pytest.approx(0, abs=1e-6)
    assert values(data).max() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_standardize_gives_each_channel_mean_0_and_deviation_1_over_train(dtype):
    rng = np.random.default_rng(0)
    n = 1500  # more than one chunk
    x = (rng.random((n, 3, 4, 3)) * [10, 200, 0] + [100, 5, 7]).astype(dtype)
    data = assemble("toy", train=(x, np.arange(n) % 2), seed=3, normalize="standardize")
    normalized = values(data).astype(np.float64)
    np.testing.assert_allclose(normalized.mean(axis=(0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(normalized.std(axis=(0, 1, 2)), [1, 1, 0], atol=1e-4)


def test_standardize_reads_the_training_split_only():
    x, y = toy(40)
    data = assemble("toy", train=(x, y), test=(x + 1000, y), seed=0, normalize="standardize")
    assert np.max(data.normalization.subtract) < 40


def test_train_limit_keeps_a_stratified_part_of_train_alone():
    whole = assemble("toy", train=toy(200), seed=0)
    data = assemble("toy", train=toy(200), seed=0, train_limit=20)
    assert np.bincount(data.train.y).tolist() == [5, 5, 5, 5]
    assert set(indices(data.train)) < set(indices(whole.train))
    assert indices(data.validation) == indices(whole.validation)
    assert indices(data.test) == indices(whole.test)
    assert len(assemble("toy", train=toy(200), seed=0, train_limit=9999).train) == len(whole.train)


def test_augment_is_for_images():
    assert assemble("toy", train=toy(), seed=0, augment={"shift_fraction": 0.0}).augment is None
    image = assemble("toy", train=toy(shape=(4, 4)), seed=0, augment={"flip_horizontal": True})
    assert image.augment is not None
    with pytest.raises(DataError, match=r"augment needs images .* Received: .*\(3,\)"):
        assemble("toy", train=toy(), seed=0, augment={"flip_horizontal": True})


X, Y = toy()
NAN = X.copy()
NAN[17, 1] = np.nan
INFINITE = X.astype(np.float64)
INFINITE[3, 0] = 1e300  # too large for float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": (X, Y[:-1])}, "train split needs one label a sample.*40 samples and 39 labels"),
        ({"train": (NAN, Y)}, "train samples must be finite.*sample 17"),
        ({"train": (INFINITE, Y)}, "train samples must be finite.*sample 3"),
        ({"test": (NAN, Y)}, "test samples must be finite"),
        ({"train": (X, Y - 1)}, "whole numbers 0 … classes - 1. Received: -1"),
        ({"train": (X, Y + 0.5)}, r"whole numbers.*Received: 0\.5"),
        ({"train": (X, np.where(Y == 2, np.nan, Y))}, "whole numbers.*Received: nan"),
        ({"train": (X, Y.astype(str))}, "labels must be whole numbers.*Received: <U"),
        ({"train": (X, np.eye(4)[Y] * 0.5)}, r"labels of shape \(40, 4\) are not one-hot"),
        ({"train": (X, Y.reshape(-1, 2, 2))}, r"one-hot \(samples, classes\).*\(10, 2, 2\)"),
        ({"train": (X, Y + 1)}, "without a gap.*1 … 4, with no sample of class 0"),
        ({"train": (X, np.where(Y == 1, 0, Y))}, "no sample of class 1"),
        ({"train": (X, np.zeros(40))}, "at least 2 classes"),
        ({"train": (X, Y), "test": (X, Y + 1)}, "test labels must be in 0 … 3.*Received: 4"),
        ({"class_names": ["a", "b"]}, "train labels must be in 0 … 1: 2 class names.*Received: 3"),
        ({"train": (X[:0], Y[:0])}, "train split is empty"),
        ({"test": (X[:0], Y[:0])}, "test split is empty"),
        ({"train": (X.astype(np.int64), Y)}, "uint8 or float. Received: int64"),
        ({"train": (X.astype(object), Y)}, "uint8 or float. Received: object"),
        ({"train": (X[:, 0], Y)}, r"at least one axis more. Received: shape \(40,\)"),
        ({"train": (np.float32(1), Y)}, r"Received: shape \(\)"),
        ({"train": (X[:, :0], Y)}, "no values"),
        ({"test": (X[:, :2], Y)}, r"All splits need samples alike.*\(3,\), test float32 \(2,\)"),
        ({"test": (X.astype(np.uint8), Y)}, "All splits need samples alike.*test uint8"),
        ({"validation_fraction": 0.0}, r"must be in \(0, 1\). Received: validation_fraction=0"),
        ({"validation_fraction": 0.001}, "of 32 samples leaves the validation split empty"),
        ({"test_fraction": 0.999}, "of 40 samples leaves the train split empty"),
        ({"train_limit": 3}, "at least the number of classes, 4. Received: train_limit=3"),
    ],
)
def test_malformed_data_is_refused_with_one_clear_message(arguments, message):
    with pytest.raises(DataError, match=message) as caught:
        assemble("toy", **{"train": (X, Y), "seed": 0, **arguments})
    assert "\n" not in str(caught.value)


def test_a_source_can_be_given_ready_made():
    x, y = toy()
    source = ArraySource(x, y.astype(np.int32))
    assert len(assemble("toy", train=source, test=source, seed=0).test) == 40
