"""The samples that a student learns from: fewer than its teacher saw, of fewer classes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from netopt_cli.dataset import Dataset, Source


def transfer_set(
    data: Dataset, *, samples_per_class: int | None, missing_classes: Collection[int], seed: int
) -> Dataset:
    """Returns the data with fewer training samples; validation and test stay whole.

    Args:
        samples_per_class: At most so many of each class, drawn by the seed; None is all.
        missing_classes: Of which there is no sample.
    """
    y = data.train.y
    generator = np.random.default_rng([seed, 3])
    chosen = [
        generator.permutation(np.flatnonzero(y == label))[:samples_per_class]
        for label in range(data.classes)
        if label not in missing_classes
    ]
    train = data.train.take(np.sort(np.concatenate(chosen)))
    return replace(data, name=f"{data.name} transfer set", train=train)


def task_of(data: Dataset, classes: Sequence[int]) -> Dataset:
    """Returns the data of some of the classes alone, which are numbered anew in this order."""

    def of_task(source: Source) -> Source:
        chosen = source.take(np.flatnonzero(np.isin(source.y, classes)))
        y = np.argmax(chosen.y[:, None] == np.asarray(classes), axis=1).astype(np.int32)
        return replace(chosen, y=y)

    names = [data.class_names[label] for label in classes]
    return replace(
        data,
        name=f"{data.name} ({', '.join(names)})",
        classes=len(classes),
        class_names=tuple(names),
        train=of_task(data.train),
        validation=of_task(data.validation),
        test=of_task(data.test),
    )
