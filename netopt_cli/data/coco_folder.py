"""Your own image files with boxes in them, as COCO describes them; they are read as a stream."""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from netopt_cli.assembly import Fraction, NormalizeRule, SampleLimit, assemble
from netopt_cli.dataset import Dataset, FileSource
from netopt_cli.errors import DataError, did_you_mean
from netopt_cli.image_header import check_image
from netopt_cli.readers import require_folder
from netopt_cli.task.detection import DETECTION, NO_OBJECT
from netopt_cli.tasks import Task

Pixels = Annotated[int, Field(ge=1)]

ANNOTATIONS = ("annotations.json", "_annotations.coco.json")
SPLITS = {
    "train": "train", "validation": "validation", "val": "validation", "valid": "validation",
    "test": "test",
}  # fmt: skip
"""Names of split folders, and the split each is."""
_SLACK = 1.0
"""Pixels that a box may be beyond the image, which is then cut off: annotators round."""


def load(
    seed: int,
    *,
    path: str,
    image_size: tuple[Pixels, Pixels] = (64, 64),
    channels: Literal[1, 3] = 3,
    validation_fraction: Fraction = 0.1,
    test_fraction: Fraction = 0.2,
    normalize: NormalizeRule = "auto",
    train_limit: SampleLimit | None = None,
    task: Task = DETECTION,
) -> Dataset:
    """Reads `path/annotations.json` (or `_annotations.coco.json`) with its images beside it, or the
    same in `path/train`, `path/validation` (or `val`, `valid`) and `path/test`.

    The file has `images` (`id`, `file_name`, `width`, `height`), `categories` (`id`, `name`) and
    `annotations` (`image_id`, `category_id`, `bbox`: left, top, width, height in pixels), as that
    of COCO (Lin et al., 2014). Crowds (`iscrowd`) are left out.

    Args:
        seed: Of the validation split and of `train_limit`.
        path: The folder.
        image_size: (height, width) that every image is resized to.
        channels: 1 (grey) or 3 (red, green, blue).
        validation_fraction: Share of the training samples; unused with a validation folder.
        test_fraction: Share of all samples, the same for every seed; unused with a test folder.
        task: What is to be learned.

    Raises:
        DataError: A file is missing or no image, a box leaves its image, a category is unknown,
            or the JSON lacks something; each is named.
    """
    root = require_folder(path).resolve()
    folders = {
        split: root / name
        for name, split in SPLITS.items()
        if _annotations(root / name) is not None
    }
    if "train" not in folders:
        if _annotations(root) is None:
            raise DataError(
                f"{root} has no {' or '.join(ANNOTATIONS)}, nor has {root / 'train'}: put it "
                "beside the images."
            )
        folders = {"train": root}
    contents = {split: _read(folder) for split, folder in folders.items()}
    names = _categories(contents["train"], folders["train"])
    height, width = image_size
    shape = (height, width, int(channels))
    sources = {
        split: _source(contents[split], folder, names, shape) for split, folder in folders.items()
    }
    return assemble(
        "coco_folder",
        train=sources["train"],
        validation=sources.get("validation"),
        test=sources.get("test"),
        class_names=list(names.values()),
        seed=seed,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        normalize=normalize,
        train_limit=train_limit,
        task=task,
    )


def _annotations(folder: Path) -> Path | None:
    return next((folder / name for name in ANNOTATIONS if (folder / name).is_file()), None)


def _read(folder: Path) -> dict[str, Any]:
    file = _annotations(folder)
    assert file is not None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"Cannot read {file}: {error}") from error
    for key in ("images", "categories", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{file} must have a list '{key}', as that of COCO has.")
        if not all(isinstance(entry, dict) for entry in content[key]):
            raise DataError(f"'{key}' of {file} must be objects, {{…}}.")
    return content | {"file": file}


def _categories(content: dict[str, Any], folder: Path) -> dict[Any, str]:
    """Names by id, in the order of the ids."""
    found = {
        _number(entry, "id", "category", content): str(entry.get("name", entry["id"]))
        for entry in content["categories"]
    }
    if not found:
        raise DataError(f"'categories' of {content['file']} are empty.")
    return dict(sorted(found.items()))


def _source(
    content: dict[str, Any], folder: Path, names: dict[Any, str], shape: tuple[int, int, int]
) -> FileSource:
    if not content["images"]:
        raise DataError(f"'images' of {content['file']} are empty.")
    order = {label: index for index, label in enumerate(names)}
    of_image: dict[Any, list[list[float]]] = defaultdict(list)
    sizes = {
        _number(entry, "id", "image", content): (
            _number(entry, "width", "image", content),
            _number(entry, "height", "image", content),
        )
        for entry in content["images"]
    }
    for entry in content["annotations"]:
        if entry.get("iscrowd"):
            continue
        image = _number(entry, "image_id", "annotation", content)
        category = _number(entry, "category_id", "annotation", content)
        if image not in sizes:
            raise DataError(
                f"An annotation of {content['file']} is of image {image:g}, which it lacks."
            )
        if category not in order:
            raise DataError(
                f"An annotation of {content['file']} is of category {category:g}, which is not "
                f"among those of the train split: {', '.join(f'{one:g}' for one in order)}."
            )
        of_image[image].append([order[category], *_box(entry, sizes[image], content)])
    most = max(map(len, of_image.values()), default=1)
    paths, labels = [], np.full((len(content["images"]), most, 5), NO_OBJECT, np.float32)
    for row, entry in zip(labels, content["images"], strict=True):
        paths.append(str(_image(folder, entry, content)))
        boxes = of_image[entry["id"]]
        row[: len(boxes)] = np.reshape(boxes, (-1, 5))
    return FileSource(np.array(paths), labels, shape)


def _box(entry: dict[str, Any], size: tuple[float, float], content: dict[str, Any]) -> list[float]:
    """left, top, right, bottom as fractions of the image."""
    bbox = entry.get("bbox")
    where = f"annotation {entry.get('id', '?')} of {content['file']}"
    is_numbers = isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_number, bbox))
    if not is_numbers:
        raise DataError(
            f"bbox must be four numbers, left, top, width, height. Received: {bbox}, {where}."
        )
    assert isinstance(bbox, list)
    left, top, width, height = map(float, bbox)
    corners = np.array([left, top, left + width, top + height])
    limits = np.array([*size, *size], float)
    is_inside = (corners >= -_SLACK).all() and (corners <= limits + _SLACK).all()
    if not is_inside or width <= 0 or height <= 0:
        raise DataError(
            f"A box must be inside of its image, {size[0]:g} x {size[1]:g} pixels, and not empty. "
            f"Received: bbox={bbox} (left, top, width, height), {where}."
        )
    return (corners / limits).clip(0, 1).tolist()


def _image(folder: Path, entry: dict[str, Any], content: dict[str, Any]) -> Path:
    name = entry.get("file_name")
    if not isinstance(name, str):
        raise DataError(
            f"Each of 'images' needs a file_name. Received: {entry}, {content['file']}."
        )
    file = (folder / name).resolve()
    if not file.is_relative_to(folder):
        raise DataError(f"The image {name} of {content['file']} is outside of {folder}: copy it.")
    if not file.is_file():
        beside = [other.name for other in file.parent.iterdir()] if file.parent.is_dir() else []
        raise DataError(
            f"No such image: {file}, named by {content['file']}.{did_you_mean(file.name, beside)}"
        )
    check_image(file)
    return file


def _number(entry: dict[str, Any], key: str, what: str, content: dict[str, Any]) -> float:
    value = entry.get(key)
    if not _is_number(value):
        raise DataError(
            f"Each {what} needs a number '{key}'. Received: {key}={value}, {content['file']}."
        )
    return value  # type: ignore[return-value]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
