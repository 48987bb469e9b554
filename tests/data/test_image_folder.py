import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from netopt_cli.data import image_folder
from netopt_cli.dataset import FileSource
from netopt_cli.errors import DataError

RNG = np.random.default_rng(0)
RED_GIF = bytes.fromhex(  # 2×2 pixels, red
    "47494638396102000200f00000ff0000ffffff21f90400000000002c00000000020002000002028451003b"
)


def photo(height=6, width=6):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def png(image):
    return tf.io.encode_png(image).numpy()


def bmp(image, bits_per_pixel=24):
    height, width, _ = image.shape
    rows = b"".join(row[:, ::-1].tobytes() + bytes(-3 * width % 4) for row in image[::-1])
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits_per_pixel, 0, len(rows), 0, 0, 0, 0
    )
    return b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + info + rows


def fill(folder, counts):
    """Writes counts[CLASS] images into folder/CLASS."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            (folder / name / f"{index:02}.png").write_bytes(png(photo()))
    return folder


def load(folder, **arguments):
    return image_folder.load(0, path=str(folder), image_size=(6, 6), **arguments)


def names(source):
    return {path.rsplit("/", 2)[-2] + "/" + path.rsplit("/", 1)[-1] for path in source.paths}


def test_class_folders_are_split_and_stay_on_disk(tmp_path):
    fill(tmp_path, {"dog": 10, "cat": 20})
    data = load(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert data.shape == (6, 6, 3)
    assert isinstance(data.train, FileSource)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [22, 2, 6]
    assert np.bincount(data.test.y).tolist() == [4, 2]
    parts = [names(split) for split in (data.train, data.validation, data.test)]
    assert len(set.union(*parts)) == 30
    other_seed = image_folder.load(1, path=str(tmp_path), image_size=(6, 6))
    assert names(other_seed.test) == parts[2]
    assert names(other_seed.validation) != parts[1]
    assert other_seed.fingerprint == data.fingerprint
    for path, label in zip(data.train.paths, data.train.y, strict=True):
        assert f"/{data.class_names[label]}/" in path


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_split_folders_are_used_as_they_are(tmp_path, validation):
    for split, count in (("train", 4), (validation, 3), ("test", 2)):
        fill(tmp_path / split, {"a": count, "b": count})
    data = load(tmp_path)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [8, 6, 4]
    assert all("/test/" in path for path in data.test.paths)


def test_missing_split_folders_are_cut_off_train(tmp_path):
    fill(tmp_path / "train", {"a": 10, "b": 10})
    fill(tmp_path / "test", {"a": 2, "b": 2})
    data = load(tmp_path, validation_fraction=0.2)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [16, 4, 4]


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, {"train": 6, "plane": 6})
    assert load(tmp_path).class_names == ("plane", "train")


def test_every_format_is_decoded(tmp_path):
    image = photo()
    contents = {
        "a.png": png(image),
        "b.JPG": tf.io.encode_jpeg(image, quality=100).numpy(),
        "c.bmp": bmp(image),
        "d.gif": RED_GIF,
        "deeper/e.jpeg": tf.io.encode_jpeg(image[..., :1]).numpy(),
        "notes.txt": b"left out",
        ".hidden.png": b"left out",
    }
    for name in ("x", "y"):
        (tmp_path / name / "deeper").mkdir(parents=True)
        for file, content in contents.items():
            (tmp_path / name / file).write_bytes(content)
    data = load(tmp_path, test_fraction=0.2, validation_fraction=0.2)
    decoded = {
        path.rsplit("/", 1)[-1]: pixels
        for split in (data.train, data.validation, data.test)
        for (pixel_batch, _) in split.batches(4)
        for path, pixels in zip(split.paths, pixel_batch, strict=False)
    }
    whole = FileSource(
        np.array([str(tmp_path / "x" / name) for name in ("a.png", "c.bmp", "d.gif", "b.JPG")]),
        np.zeros(4, np.int32),
        (6, 6, 3),
    )
    ((pixels, _),) = whole.batches(4)
    np.testing.assert_array_equal(pixels[0], image)
    np.testing.assert_array_equal(pixels[1], image)
    np.testing.assert_array_equal(pixels[2], np.broadcast_to([255, 0, 0], (6, 6, 3)))
    assert np.abs(pixels[3].astype(int).mean() - image.mean()) < 10
    assert set(decoded) <= {"a.png", "b.JPG", "c.bmp", "d.gif", "e.jpeg"}
    assert sum(len(split) for split in (data.train, data.validation, data.test)) == 10


def test_grey_and_size_are_parameters(tmp_path):
    fill(tmp_path, {"a": 6, "b": 6})
    data = image_folder.load(0, path=str(tmp_path), image_size=[4, 9], channels=1)
    ((x, _),) = data.test.batches(10)
    assert x.shape == (2, 4, 9, 1)
    assert data.shape == (4, 9, 1)


def test_common_parameters_arrive(tmp_path):
    fill(tmp_path, {"a": 20, "b": 20})
    data = load(
        tmp_path, normalize="standardize", augment={"flip_horizontal": True}, train_limit=10
    )
    assert len(data.train) == 10
    assert data.augment is not None
    x = np.concatenate([x for x, _ in data.normalized_batches(data.train, 4)])
    np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(x.std((0, 1, 2)), 1, atol=1e-4)


def test_only_what_is_yielded_has_to_be_readable(tmp_path):
    fill(tmp_path, {"a": 20, "b": 20})
    data = load(tmp_path)
    last = data.train.paths[-1]
    Path(last).write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    batches = data.train.batches(1)
    for _ in range(len(data.train) - 1):
        next(batches)
    with pytest.raises(DataError, match=f"Cannot decode the image {last}"):
        next(batches)


def test_bad_folders_get_one_clear_message(tmp_path):
    def refused(message):
        with pytest.raises(DataError, match=message) as caught:
            load(tmp_path / "set")
        assert "\n" not in str(caught.value)

    refused("No such folder: .*set")
    (tmp_path / "set").mkdir()
    refused("has no class folders")
    fill(tmp_path / "set", {"a": 6})
    refused("at least 2 classes")
    (tmp_path / "set" / "b").mkdir()
    refused(r"class folder .*/b has no images \(\.png")
    (tmp_path / "set" / "b" / "fake.png").write_bytes(b"no image")
    refused(r"Not a png, jpg, bmp or gif image: .*fake\.png")
    (tmp_path / "set" / "b" / "fake.png").write_bytes(bmp(photo(), bits_per_pixel=8))
    refused(r"24 or 32 bits a pixel. Received: .*fake\.png with 8")


def test_a_class_unknown_to_train_is_refused(tmp_path):
    fill(tmp_path / "train", {"cat": 4, "dog": 4})
    fill(tmp_path / "test", {"cat": 2, "dogs": 2})
    with pytest.raises(DataError, match=r"dogs is not among the classes.*Did you mean 'dog'"):
        load(tmp_path)


def test_two_validation_folders_are_refused(tmp_path):
    for split in ("train", "val", "validation"):
        fill(tmp_path / split, {"a": 4, "b": 4})
    with pytest.raises(DataError, match="both a 'validation' and a 'val' folder"):
        load(tmp_path)


def test_links_may_not_leave_the_folder(tmp_path):
    fill(tmp_path / "set", {"a": 6, "b": 6})
    outside = tmp_path / "outside.png"
    outside.write_bytes(png(photo()))
    (tmp_path / "set" / "a" / "inside.png").symlink_to(tmp_path / "set" / "b" / "00.png")
    data = load(tmp_path / "set")
    assert len(data.train) + len(data.validation) + len(data.test) == 13
    link = tmp_path / "set" / "a" / "link.png"
    link.symlink_to(outside)
    with pytest.raises(DataError, match=r"link\.png leads out of"):
        load(tmp_path / "set")
    link.unlink()
    (tmp_path / "set" / "c").symlink_to(tmp_path)
    with pytest.raises(DataError, match="/c leads out of"):
        load(tmp_path / "set")
