"""Your own arrays: one `.npz` file."""

from collections.abc import Sequence

from netopt_cli.assembly import Fraction, NormalizeRule, SampleLimit, assemble
from netopt_cli.augment import AugmentOptions
from netopt_cli.dataset import Dataset
from netopt_cli.npz_file import NpzArrays, npz_file
from netopt_cli.readers import Arrays
from netopt_cli.task.classification import CLASSIFICATION
from netopt_cli.tasks import Task


def load(
    seed: int,
    *,
    path: str,
    class_names: Sequence[str] | None = None,
    validation_fraction: Fraction = 0.1,
    normalize: NormalizeRule = "auto",
    augment: AugmentOptions | None = None,
    train_limit: SampleLimit | None = None,
    task: Task = CLASSIFICATION,
    labels_per_class: SampleLimit | None = None,
) -> Dataset:
    """Loads `x_train`, `y_train`, `x_test`, `y_test`, and `x_validation`, `y_validation` (or
    `x_val`, `y_val`) when they are there.

    x is (n, *shape) uint8 or float; images (n, h, w) get a channel axis. y is as the task has it:
    (n,) whole numbers from 0, or one-hot (n, classes), of classes. Pickled objects are refused:
    they can run code.

    Args:
        seed: Of the validation split, of `train_limit` and of `labels_per_class`.
        path: The file.
        task: What is to be learned.
        class_names: One name a class; when None, the numbers seen in `y_train`.
        validation_fraction: Share of the training samples; unused when the file has a validation
            split.

    Raises:
        DataError: the file is missing, malformed or inconsistent.
    """
    with npz_file(path) as arrays:
        train, test = _pair(arrays, "train"), _pair(arrays, "test")
        given = [split for split in ("validation", "val") if _has(arrays, split)]
        validation = _pair(arrays, given[0]) if given else None
    return assemble(
        "npz",
        train=train,
        validation=validation,
        test=test,
        class_names=class_names,
        seed=seed,
        validation_fraction=validation_fraction,
        normalize=normalize,
        augment=augment,
        train_limit=train_limit,
        task=task,
        labels_per_class=labels_per_class,
    )


def _has(arrays: NpzArrays, split: str) -> bool:
    return f"x_{split}" in arrays or f"y_{split}" in arrays


def _pair(arrays: NpzArrays, split: str) -> Arrays:
    return arrays[f"x_{split}"], arrays[f"y_{split}"]
