"""Handwritten digits that come with scikit-learn: no download."""

import numpy as np

from netopt_cli.assembly import Fraction, NormalizeRule, SampleLimit, assemble
from netopt_cli.augment import AugmentOptions
from netopt_cli.dataset import Dataset
from netopt_cli.task.classification import CLASSIFICATION
from netopt_cli.tasks import Task


def load(
    seed: int,
    *,
    validation_fraction: Fraction = 0.1,
    normalize: NormalizeRule = "auto",
    augment: AugmentOptions | None = None,
    train_limit: SampleLimit | None = None,
    task: Task = CLASSIFICATION,
    labels_per_class: SampleLimit | None = None,
) -> Dataset:
    """Loads the 1,797 images of 8×8×1 pixels, 10 classes; a fixed fifth is the test split.

    Source: Alpaydin & Kaynak 1998, UCI Optical Recognition of Handwritten Digits (its test part).

    Args:
        seed: Of the validation split, of `train_limit` and of `labels_per_class`.
        task: What is to be learned of the classes.

    Raises:
        DataError: a parameter does not fit the data.
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = np.round(x.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # pixels are 0 … 16
    return assemble(
        "digits",
        train=(x, y),
        test_fraction=0.2,
        seed=seed,
        validation_fraction=validation_fraction,
        normalize=normalize,
        augment=augment,
        train_limit=train_limit,
        task=task,
        labels_per_class=labels_per_class,
    )
