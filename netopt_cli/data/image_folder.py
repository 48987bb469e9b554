"""Your own image files, in one folder a class; they stay on disk and are read as a stream."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from netopt_cli.assembly import Fraction, NormalizeRule, SampleLimit, assemble
from netopt_cli.augment import AugmentOptions
from netopt_cli.class_folders import LabelledFiles, list_class_folders
from netopt_cli.dataset import Dataset, FileSource
from netopt_cli.image_header import check_image
from netopt_cli.task.classification import CLASSIFICATION
from netopt_cli.tasks import Task

Pixels = Annotated[int, Field(ge=1)]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


def load(
    seed: int,
    *,
    path: str,
    image_size: tuple[Pixels, Pixels] = (32, 32),
    channels: Literal[1, 3] = 3,
    validation_fraction: Fraction = 0.1,
    test_fraction: Fraction = 0.2,
    normalize: NormalizeRule = "auto",
    augment: AugmentOptions | None = None,
    train_limit: SampleLimit | None = None,
    task: Task = CLASSIFICATION,
    labels_per_class: SampleLimit | None = None,
) -> Dataset:
    """Lists `path/CLASS/…`, or `path/train/CLASS/…` with `path/validation` (or `val`) and
    `path/test` beside it; only paths and labels are held in memory.

    Files are png, jpg, jpeg, bmp or gif (its first frame); the rest is left out. Every file's
    header is checked here; a file that is broken further in is named when it is read.

    Args:
        seed: Of the validation split, of `train_limit` and of `labels_per_class`.
        task: What is to be learned of the classes.
        path: The folder. Links that lead out of it are refused.
        image_size: (height, width) that every image is resized to.
        channels: 1 (grey) or 3 (red, green, blue).
        validation_fraction: Share of the training samples; unused with a validation folder.
        test_fraction: Share of all samples, the same for every seed; unused with a test folder.

    Raises:
        DataError: no images, an empty class, a file that is no image, a link that leaves `path`.
    """
    class_names, listed = list_class_folders(path, suffixes=SUFFIXES, what="images")
    height, width = image_size
    sources = {
        split: _source(files, (height, width, int(channels))) for split, files in listed.items()
    }
    return assemble(
        "image_folder",
        train=sources["train"],
        validation=sources.get("validation"),
        test=sources.get("test"),
        class_names=class_names,
        seed=seed,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        normalize=normalize,
        augment=augment,
        train_limit=train_limit,
        task=task,
        labels_per_class=labels_per_class,
    )


def _source(files: LabelledFiles, image_shape: tuple[int, int, int]) -> FileSource:
    for path in files.paths:
        check_image(path)
    return FileSource(
        np.array([str(path) for path in files.paths]),
        np.array(files.labels, np.int32),
        image_shape,
    )
