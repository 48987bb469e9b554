from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from netopt_cli.assembly import assemble
from netopt_cli.dataset import ArraySource, FileSource, Normalization
from netopt_cli.errors import DataError


@pytest.fixture
def images(tmp_path):
    """Seven grey 4×5 images as a FileSource, with their pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 1), np.uint8)
    paths = []
    for index, image in enumerate(pixels):
        path = tmp_path / f"{index}.png"
        path.write_bytes(tf.io.encode_png(image).numpy())
        paths.append(str(path))
    return FileSource(np.array(paths), np.arange(7, dtype=np.int32), (4, 5, 1)), pixels


def joined(source, batch_size):
    xs, ys = zip(*source.batches(batch_size), strict=True)
    assert [len(x) for x in xs] == [len(y) for y in ys]
    assert all(len(x) == batch_size for x in xs[:-1])
    return np.concatenate(xs), np.concatenate(ys)


def test_an_array_source_gives_its_samples_in_order_with_a_short_last_batch():
    source = ArraySource(np.arange(14, dtype=np.uint8).reshape(7, 2), np.arange(7, dtype=np.int32))
    x, y = joined(source, 3)
    np.testing.assert_array_equal(x, source.x)
    np.testing.assert_array_equal(y, source.y)


def test_a_file_source_gives_the_exact_pixels_in_order(images):
    source, pixels = images
    x, y = joined(source, 3)
    np.testing.assert_array_equal(x, pixels)
    np.testing.assert_array_equal(y, source.y)
    assert x.dtype == source.dtype == np.uint8


def test_taking_samples_of_a_source_keeps_them_together(images):
    source, pixels = images
    indices = np.array([5, 0])
    x, y = joined(source.take(indices), 2)
    np.testing.assert_array_equal(x, pixels[indices])
    np.testing.assert_array_equal(y, [5, 0])
    array = ArraySource(pixels, source.y).take(indices)
    np.testing.assert_array_equal(array.x, pixels[indices])
    np.testing.assert_array_equal(array.y, [5, 0])


def test_a_file_source_resizes_and_makes_grey_images_colour(images):
    source, pixels = images
    colour = FileSource(source.paths, source.y, (8, 10, 3))
    x, _ = next(colour.batches(7))
    assert x.shape == (7, 8, 10, 3)
    np.testing.assert_array_equal(x[..., 0], x[..., 2])
    assert abs(x.mean() - pixels.mean()) < 5


def test_a_broken_file_is_named_when_its_batch_is_reached(images):
    source, _ = images
    broken = Path(source.paths[5])
    broken.write_bytes(broken.read_bytes()[:40])
    batches = source.batches(2)
    next(batches)
    next(batches)
    with pytest.raises(DataError, match=r"Cannot decode the image .*5\.png"):
        next(batches)
    with pytest.raises(DataError, match=r"5\.png"):
        source.check_files()
    source.take(np.array([0, 6])).check_files()


def test_a_digest_changes_with_pixels_labels_and_order(images):
    source, pixels = images
    array = ArraySource(pixels, source.y)
    changed = pixels.copy()
    changed[3, 0, 0, 0] ^= 1
    digests = {
        array.digest(),
        ArraySource(changed, source.y).digest(),
        ArraySource(pixels, source.y[::-1]).digest(),
        ArraySource(pixels.reshape(7, 5, 4, 1), source.y).digest(),
    }
    assert len(digests) == 4
    assert ArraySource(pixels.copy(), source.y.copy()).digest() == array.digest()


def test_the_digest_of_files_does_not_depend_on_where_they_are(images, tmp_path):
    source, _ = images
    moved = tmp_path / "moved"
    moved.mkdir()
    paths = []
    for path in map(Path, source.paths):
        (moved / path.name).write_bytes(path.read_bytes())
        paths.append(str(moved / path.name))
    there = FileSource(np.array(paths), source.y, source.image_shape)
    assert there.digest() == source.digest()
    with Path(paths[0]).open("ab") as file:
        file.write(b"\0")
    assert there.digest() != source.digest()


@pytest.mark.parametrize(
    "normalization",
    [
        Normalization(),
        Normalization(multiply=1 / 255),
        Normalization(np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.25, 2.0])),
    ],
)
def test_arrays_and_tensors_are_normalized_alike(normalization):
    x = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    array, tensor = normalization.numpy(x), normalization.tensor(tf.constant(x))
    assert array.dtype == np.float32
    assert tensor.dtype == tf.float32
    np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-6)
    expected = (x.astype(float) - normalization.subtract) * normalization.multiply
    np.testing.assert_allclose(array, expected, rtol=1e-5)


def test_normalized_batches_are_float_and_labels_int():
    x = np.arange(40, dtype=np.uint8).reshape(10, 4)
    data = assemble("toy", train=(x, [0, 1] * 5), test=(x, [0, 1] * 5), seed=0)
    (first, labels), _ = data.normalized_batches(data.test, 5)
    np.testing.assert_allclose(first, x[:5] / 255, rtol=1e-6)
    assert first.dtype == np.float32
    assert labels.dtype == np.int32
