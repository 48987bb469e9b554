import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_data
import numpy as np
import pytest

from netopt_cli.data import coco_folder
from netopt_cli.dataset import Dataset
from netopt_cli.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made_data.coco_folder(tmp_path, count=10)


def load(folder: Path) -> Dataset:
    return coco_folder.load(0, path=str(folder), image_size=(16, 16), channels=1)


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    file = folder / "annotations.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return folder


def test_images_and_boxes_arrive(folder: Path) -> None:
    data = load(folder)
    assert data.class_names == ("low", "high"), "in the order of the ids"
    assert data.shape == (16, 16, 1)
    content = json.loads((folder / "annotations.json").read_text())
    wanted = [entry for entry in content["annotations"] if entry["image_id"] == 0]
    found = {Path(p).name: y for s in (data.train, data.validation, data.test)
             for p, y in zip(s.paths, s.y, strict=True)}["0.png"]  # fmt: skip
    found = found[found[:, 0] >= 0]
    assert len(found) == len(wanted)
    left, top, width, height = wanted[0]["bbox"]
    assert found[0, 0] == [3, 7].index(wanted[0]["category_id"])
    np.testing.assert_allclose(found[0, 1:] * 32, [left, top, left + width, top + height])
    x, y = next(data.normalized_batches(data.train, 4))
    assert x.max() > 0.5 and y.shape[::2] == (4, 5)


def test_splits_that_are_there_are_used(tmp_path: Path) -> None:
    for name in ("train", "valid", "test"):
        (tmp_path / name).mkdir()
        made_data.coco_folder(tmp_path / name, count=6).rename(tmp_path / "set")
        (tmp_path / name).rmdir()
        (tmp_path / "set").rename(tmp_path / name)
    (tmp_path / "valid/annotations.json").rename(tmp_path / "valid/_annotations.coco.json")
    data = load(tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 6, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][3].update(file_name="33.png"), r"No such image: .*33.png.*'3.png'"),
        (lambda c: c["images"][3].update(file_name="../../x.png"), "outside of"),
        (
            lambda c: c["annotations"][0].update(bbox=[30, 0, 8, 8]),
            "must be inside of its image, 32 x 32 .*annotation 0 ",
        ),
        (
            lambda c: c["annotations"][0].update(bbox=[3, 0, 0, 8]),
            r"not empty.*bbox=\[3, 0, 0, 8\]",
        ),
        (lambda c: c["annotations"][0].update(bbox=[3, 0, "8"]), "four numbers"),
        (lambda c: c["annotations"][1].update(category_id=5), "category 5, which is not .*: 3, 7"),
        (lambda c: c["annotations"][1].update(image_id=99), "image 99, which it lacks"),
        (lambda c: c["annotations"][1].pop("image_id"), "needs a number 'image_id'"),
        (lambda c: c.pop("categories"), "must have a list 'categories'"),
        (lambda c: c.update(annotations=[]), "the train split has none"),
        (lambda c: c.update(images=[3]), "must be objects"),
    ],
)
def test_what_is_wrong_is_named(
    folder: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load(changed(folder, change))


def test_a_folder_without_annotations_and_a_broken_file(folder: Path) -> None:
    with pytest.raises(DataError, match=r"has no annotations.json or _annotations.coco.json"):
        load(folder.parent)
    (folder / "annotations.json").write_text("{")
    with pytest.raises(DataError, match=r"Cannot read .*annotations.json"):
        load(folder)
