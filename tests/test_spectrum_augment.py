import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter, ValidationError

from netopt_cli.spectrum_augment import SpectrumAugmentOptions, spectrum_augmentation

SEED = tf.constant([1, 2])
EVERYTHING = {
    "time_shift": 0.2, "time_stretch": 0.2, "frequency_shift": 0.1, "frequency_stretch": 0.1,
    "time_mask": 0.3, "frequency_mask": 0.3, "noise": 0.1,
}  # fmt: skip


def spectra(n=64, shape=(20, 12, 1)):
    return np.random.default_rng(0).normal(5, 1, (n, *shape)).astype(np.float32)


def augmented(x, seed=SEED, **options):
    return spectrum_augmentation(**options)(tf.constant(x), seed).numpy()


def test_nothing_switched_on_is_no_augmentation():
    assert spectrum_augmentation() is None
    assert spectrum_augmentation(**dict.fromkeys(EVERYTHING, 0.0)) is None


@pytest.mark.parametrize("name", EVERYTHING)
def test_the_seed_alone_decides_and_samples_differ(name):
    x = np.repeat(spectra(1), 16, axis=0)
    first = augmented(x, **{name: EVERYTHING[name]})
    np.testing.assert_array_equal(first, augmented(x, **{name: EVERYTHING[name]}))
    assert first.shape == x.shape and first.dtype == np.float32
    assert len(np.unique(first.reshape(16, -1), axis=0)) > 3
    assert not np.allclose(first, augmented(x, tf.constant([1, 3]), **{name: EVERYTHING[name]}))


def test_a_compiled_step_of_unknown_batch_size_gives_the_same():
    augment = spectrum_augmentation(**EVERYTHING)
    signature = [tf.TensorSpec((None, 20, 12, 1)), tf.TensorSpec((2,), tf.int32)]
    compiled = tf.function(augment, input_signature=signature)
    x = spectra()
    np.testing.assert_allclose(compiled(x, SEED), augment(tf.constant(x), SEED), atol=1e-5)


@pytest.mark.parametrize(("name", "axis"), [("time", 1), ("frequency", 2)])
def test_a_shift_and_a_stretch_change_one_axis(name, axis):
    ramp = np.broadcast_to(np.arange(20.0).reshape(20, 1, 1), (64, 20, 20, 1)).astype("float32")
    ramp = np.swapaxes(ramp, 1, axis)
    other = 3 - axis
    shifted = augmented(ramp, **{f"{name}_shift": 0.2})
    np.testing.assert_allclose(shifted.std(axis=other), 0, atol=1e-5)
    moved = (ramp - shifted).take(10, axis=axis).ravel()  # in the middle, away from the edges
    assert -4 <= moved.min() < -2 and 2 < moved.max() <= 4
    stretched = augmented(ramp, **{f"{name}_stretch": 0.2})
    np.testing.assert_allclose(stretched.std(axis=other), 0, atol=1e-5)
    slope = np.diff(stretched, axis=axis).take(range(8, 11), axis=axis)
    assert 1 / 1.2 - 1e-3 <= slope.min() < 0.9 and 1.1 < slope.max() <= 1 / 0.8 + 1e-3
    np.testing.assert_allclose(stretched.take([9, 10], axis=axis).mean(), 9.5, atol=1e-3)


@pytest.mark.parametrize(("name", "axis"), [("time", 1), ("frequency", 2)])
def test_a_mask_is_a_stripe_of_zeros_no_longer_than_allowed(name, axis):
    x = spectra(400)
    masked = augmented(x, **{f"{name}_mask": 0.3})
    stripe = (masked == 0).all(axis=(3 - axis, 3))  # (batch, frames or bins)
    np.testing.assert_array_equal(masked, np.where(np.isin(masked, 0), 0, x))
    lengths = stripe.sum(axis=1)
    assert set(lengths) == set(range(int(0.3 * x.shape[axis]) + 1))
    edges = np.abs(np.diff(np.pad(stripe.astype(int), ((0, 0), (1, 1))))).sum(axis=1)
    assert set(edges) <= {0, 2}  # in one piece
    assert stripe.any(axis=0).all()  # anywhere


def test_noise_has_its_deviation():
    x = spectra()
    assert (augmented(x, noise=0.5) - x).std() == pytest.approx(0.5, rel=0.05)


def test_options_are_checked():
    adapter = TypeAdapter(SpectrumAugmentOptions)
    assert adapter.validate_python(EVERYTHING) == EVERYTHING
    for wrong in ({"time_shift": 1.0}, {"noise": -1.0}, {"flip_horizontal": True}):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)
