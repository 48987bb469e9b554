import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from netopt_cli.augment import AugmentOptions, augmentation

SEED = tf.constant([1, 2])
OPTIONS = st.fixed_dictionaries(
    {
        "flip_horizontal": st.booleans(),
        "shift_fraction": st.sampled_from([0.0, 0.2, 0.9]),
        "rotate_degrees": st.sampled_from([0.0, 30.0, 180.0]),
        "zoom_fraction": st.sampled_from([0.0, 0.3]),
        "cutout_fraction": st.sampled_from([0.0, 0.01, 0.5]),
        "rand_augment_operations": st.integers(0, 3),
    }
)


def batch(n=64, shape=(6, 7, 3)):
    return np.random.default_rng(0).normal(size=(n, *shape)).astype(np.float32)


def test_nothing_switched_on_is_no_augmentation():
    assert augmentation() is None
    assert augmentation(flip_horizontal=False, shift_fraction=0.0, cutout_fraction=0.0) is None


@given(OPTIONS, st.integers(1, 5), st.sampled_from([(6, 7, 3), (8, 8, 1)]))
@settings(deadline=None, max_examples=40)
def test_shape_and_type_stay_and_the_seed_alone_decides(options, n, shape):
    augment = augmentation(**options)
    if augment is None:
        return
    x = batch(n, shape)
    first, again = augment(tf.constant(x), SEED), augment(tf.constant(x), SEED)
    assert first.shape == x.shape
    assert first.dtype == tf.float32
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)


def test_a_compiled_step_of_unknown_batch_size_gives_the_same():
    augment = augmentation(flip_horizontal=True, shift_fraction=0.2, cutout_fraction=0.3)
    signature = [tf.TensorSpec((None, 6, 7, 3)), tf.TensorSpec((2,), tf.int32)]
    compiled = tf.function(augment, input_signature=signature)
    np.testing.assert_array_equal(compiled(batch(), SEED), augment(tf.constant(batch()), SEED))


def test_other_seeds_and_other_samples_get_other_changes():
    augment = augmentation(shift_fraction=0.9, rotate_degrees=90)
    same = np.repeat(batch(1), 8, axis=0)
    changed = augment(tf.constant(same), SEED).numpy()
    assert not np.allclose(changed[0], changed[1])
    assert not np.allclose(changed, augment(tf.constant(same), tf.constant([1, 3])))


def test_flip_mirrors_about_half_and_twice_is_the_identity():
    augment = augmentation(flip_horizontal=True)
    x = batch(400)
    flipped = augment(tf.constant(x), SEED).numpy()
    is_mirrored = (flipped == x[:, :, ::-1]).all(axis=(1, 2, 3))
    is_same = (flipped == x).all(axis=(1, 2, 3))
    assert (is_mirrored ^ is_same).all()
    assert 140 < is_mirrored.sum() < 260
    np.testing.assert_array_equal(augment(tf.constant(flipped), SEED), x)


def test_shift_moves_by_whole_pixels_within_its_bound_and_repeats_the_edge():
    x = batch(300, (10, 10, 1))
    shifted = augmentation(shift_fraction=0.2)(tf.constant(x), SEED).numpy()
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    offsets = [(dy, dx) for dy in range(5) for dx in range(5)]
    matches = np.stack(
        [(padded[:, dy : dy + 10, dx : dx + 10] == shifted).all((1, 2, 3)) for dy, dx in offsets]
    )
    assert (matches.sum(axis=0) == 1).all()
    assert matches.any(axis=1).all()  # every offset in the bound occurs


def test_rotation_and_zoom_keep_the_centre_and_stay_in_their_bounds():
    x = np.zeros((200, 21, 21, 1), np.float32)
    x[:, 10, 18] = x[:, 10, 17] = x[:, 10, 10] = 1  # a mark to the right of the centre
    turned = augmentation(rotate_degrees=45)(tf.constant(x), SEED).numpy()[..., 0]
    np.testing.assert_allclose(turned[:, 10, 10], 1, atol=1e-4)
    outer = np.hypot(*np.mgrid[-10:11, -10:11]) > 5
    rows, columns = np.mgrid[-10:11, -10:11]
    mass = (turned * outer).sum((1, 2))
    angle = np.degrees(
        np.arctan2((turned * outer * rows).sum((1, 2)), (turned * outer * columns).sum((1, 2)))
    )
    assert (mass > 1).all()
    assert 35 < np.abs(angle).max() < 47
    assert angle.min() < -20 < 20 < angle.max()
    ramp = np.broadcast_to(
        np.arange(-10, 11, dtype=np.float32)[None, :, None, None], (200, 21, 21, 1)
    )
    zoomed = augmentation(zoom_fraction=0.25)(tf.constant(ramp), SEED).numpy()[..., 0]
    scale = 1 / (zoomed[:, 12, 10] - zoomed[:, 11, 10])
    np.testing.assert_allclose(zoomed[:, 10, 10], 0, atol=1e-4)
    assert 0.75 - 1e-3 <= scale.min() < 0.8
    assert 1.2 < scale.max() <= 1.25 + 1e-3


def test_cutout_zeroes_one_square_in_all_channels():
    x = np.ones((300, 8, 12, 2), np.float32)
    holes = augmentation(cutout_fraction=0.25)(tf.constant(x), SEED).numpy() == 0
    np.testing.assert_array_equal(holes[..., 0], holes[..., 1])
    height, width = holes.any(axis=2)[..., 0].sum(1), holes.any(axis=1)[..., 0].sum(1)
    assert height.max() == 2
    assert width.max() == 3
    np.testing.assert_array_equal(holes[..., 0].sum((1, 2)), height * width)
    assert holes.any(axis=0).all()  # no pixel is safe


def test_shear_tilts_the_lines_of_the_image_about_its_centre():
    x = np.zeros((400, 21, 21, 1), np.float32)
    x[:, :, 10] = 1  # an upright line
    changed = augmentation(rand_augment_operations=1, rand_augment_magnitude=1.0)
    sheared = changed(tf.constant(x), SEED).numpy()[..., 0]
    columns = (sheared * np.arange(21)).sum(2) / np.maximum(sheared.sum(2), 1e-6)
    is_line = np.isclose(sheared.sum(2), 1, atol=1e-3).all(axis=1)
    tilts = {round(float(t), 1) for t in (columns[is_line, 18] - columns[is_line, 2]) / 16}
    assert {-0.3, 0.0, 0.3} <= tilts


def test_rand_augment_changes_about_as_many_samples_as_it_draws_and_stays_in_range():
    x = np.random.default_rng(1).uniform(-3, 5, (600, 8, 8, 2)).astype(np.float32)
    low, high = x.min(axis=(1, 2), keepdims=True), x.max(axis=(1, 2), keepdims=True)
    shares = []
    for operations in (1, 2):
        augment = augmentation(rand_augment_operations=operations, rand_augment_magnitude=0.5)
        changed = augment(tf.constant(x), SEED).numpy()
        assert (changed >= low - 1e-4).all() and (changed <= high + 1e-4).all()
        shares.append(float((np.abs(changed - x) > 1e-4).any(axis=(1, 2, 3)).mean()))
    # Nine of ten operations do something; two of a kind can cancel.
    assert 0.85 < shares[0] < 0.93 < shares[1] < 0.98


def test_rand_augment_is_the_same_under_any_normalization():
    augment = augmentation(rand_augment_operations=3, rand_augment_magnitude=0.4)
    x = batch(50)
    scale, offset = np.float32([2.0, 0.5, 7.0]), np.float32([1.0, -4.0, 0.3])
    moved = augment(tf.constant(x * scale + offset), SEED)
    expected = augment(tf.constant(x), SEED).numpy() * scale + offset
    close = np.isclose(moved, expected, atol=2e-3)
    assert close.mean() > 0.995  # a level is the next one where rounding tips it over


@pytest.mark.parametrize(
    "wrong",
    [{"flip": True}, {"shift_fraction": 1.5}, {"zoom_fraction": -0.1}, {"rotate_degrees": 200}],
)
def test_wrong_options_are_refused_by_their_type(wrong):
    adapter = TypeAdapter(AugmentOptions)
    assert adapter.validate_python({"shift_fraction": 0.1}) == {"shift_fraction": 0.1}
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        adapter.validate_python(wrong)
