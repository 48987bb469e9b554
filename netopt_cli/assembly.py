"""The one way to make a `Dataset`: check, cut off missing splits, normalize.

Loaders (the `data` group, or a user's own) only read; all of them end in `assemble`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from netopt_cli.augment import AugmentOptions, augmentation
from netopt_cli.dataset import NO_LABEL, ArraySource, Dataset, Normalization, Source
from netopt_cli.errors import DataError

Fraction = Annotated[float, Field(gt=0, lt=1)]
NormalizeRule = Literal["auto", "none", "unit", "standardize"]
SampleLimit = Annotated[int, Field(ge=1)]

TEST_SPLIT_SEED = 0
"""A test split that we cut ourselves is the same in every run, whatever the seed of the run."""

_CHUNK = 1024
"""Samples looked at at once by the passes over a whole split."""


Split = Source | tuple[Any, Any]
"""What a loader hands over: a source, or a pair (x, y) of arrays."""


def assemble(
    name: str,
    *,
    train: Split,
    validation: Split | None = None,
    test: Split | None = None,
    class_names: Sequence[str] | None = None,
    seed: int,
    validation_fraction: Fraction = 0.1,
    test_fraction: Fraction = 0.2,
    normalize: NormalizeRule = "auto",
    augment: AugmentOptions | None = None,
    train_limit: SampleLimit | None = None,
    labels_per_class: SampleLimit | None = None,
) -> Dataset:
    """Checks what a loader read and makes the data set of it; every loader ends here.

    Args:
        train: x (n, *shape) uint8 or float, y (n,) whole numbers, (n, 1), or one-hot (n, classes).
            Images (n, h, w) get a channel axis.
        validation: Cut off `train` (stratified, by `seed`) when None.
        test: Cut off `train` (stratified, the same for every seed) when None.
        class_names: One name a class. When None the classes are those seen in `train`.
        validation_fraction: Share of the training samples; unused when `validation` is given.
        test_fraction: Share of all samples; unused when `test` is given.
        normalize: `auto` divides uint8 by 255 and leaves floats as they are; `none`; `unit` maps
            the range of the type (uint8) or of the training split (float) to [0, 1];
            `standardize` gives every channel mean 0 and deviation 1 over the training split.
        augment: The arguments of `augment.augmentation`; for images only.
        train_limit: Keeps that many training samples (stratified, by `seed`).
        labels_per_class: The label budget: so many training samples of each class (by `seed`) are
            `train`, the others `unlabeled`. Normalization goes by all of them.

    Raises:
        DataError: the data is malformed or inconsistent; see the message.
    """
    sources = {
        split: _checked(split, given)
        for split, given in (("train", train), ("validation", validation), ("test", test))
        if given is not None
    }
    names = _class_names(sources, class_names)
    digests = [f"{split} {source.digest()}" for split, source in sources.items()]
    if "test" not in sources:
        sources["train"], sources["test"] = _cut_off(
            sources["train"], "test", test_fraction, TEST_SPLIT_SEED
        )
    if "validation" not in sources:
        sources["train"], sources["validation"] = _cut_off(
            sources["train"], "validation", validation_fraction, seed
        )
    if train_limit is not None:
        sources["train"] = _limited(sources["train"], train_limit, len(names), seed)
    normalization = _normalization(sources["train"], normalize)
    unlabeled = hidden_labels = None
    if labels_per_class is not None:
        sources["train"], rest = _within_budget(sources["train"], labels_per_class, names, seed)
        unlabeled, hidden_labels = replace(rest, y=np.full_like(rest.y, NO_LABEL)), rest.y
    shape = sources["train"].shape
    augment_batch = augmentation(**(augment or {}))
    if augment_batch is not None and len(shape) != 3:
        raise DataError(
            f"augment needs images (height, width, channels). Received: samples of shape {shape}."
        )
    return Dataset(
        name=name,
        shape=shape,
        classes=len(names),
        class_names=names,
        train=sources["train"],
        validation=sources["validation"],
        test=sources["test"],
        normalization=normalization,
        augment=augment_batch,
        fingerprint=hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        unlabeled=unlabeled,
        hidden_labels=hidden_labels,
    )


def stratified_choice(y: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Chooses `count` of the samples at random, every class in proportion (within one sample).

    A class is never chosen whole while another one can give the sample, so that what is left over
    keeps every class.

    Args:
        y: (n,) whole-numbered labels.
        count: In [0, n].

    Returns:
        (count,) sorted indices.
    """
    _, members, sizes = np.unique(y, return_inverse=True, return_counts=True)
    quota, remainder = np.divmod(sizes * count, len(y))
    by_remainder = np.lexsort((-remainder, quota + 1 >= sizes))
    quota[by_remainder[: count - quota.sum()]] += 1
    rng = np.random.default_rng(seed)
    chosen = [
        rng.permutation(np.flatnonzero(members == index))[:size] for index, size in enumerate(quota)
    ]
    return np.sort(np.concatenate(chosen))


def _cut_off(source: Source, split: str, fraction: float, seed: int) -> tuple[Source, Source]:
    if not 0 < fraction < 1:
        raise DataError(
            f"{split}_fraction must be in (0, 1). Received: {split}_fraction={fraction}"
        )
    count = round(len(source) * fraction)
    if count == 0 or count == len(source):
        empty = "train" if count else split
        raise DataError(
            f"{split}_fraction={fraction} of {len(source)} samples leaves the {empty} split empty."
        )
    chosen = stratified_choice(source.y, count, seed)
    rest = np.setdiff1d(np.arange(len(source)), chosen, assume_unique=True)
    return source.take(rest), source.take(chosen)


def _limited(source: Source, train_limit: int, classes: int, seed: int) -> Source:
    if train_limit < classes:
        raise DataError(
            f"train_limit must be at least the number of classes, {classes}. "
            f"Received: train_limit={train_limit}"
        )
    if train_limit >= len(source):
        return source
    return source.take(stratified_choice(source.y, train_limit, seed))


def _within_budget(
    source: Source, labels_per_class: int, names: Sequence[str], seed: int
) -> tuple[Source, Source]:
    """Returns so many samples of each class, and the others."""
    generator = np.random.default_rng([seed, 4])
    chosen = []
    for label, name in enumerate(names):
        members = np.flatnonzero(source.y == label)
        if len(members) < labels_per_class:
            raise DataError(
                f"labels_per_class={labels_per_class} is more than class '{name}' has in the "
                f"training split: {len(members)}"
            )
        chosen.append(generator.permutation(members)[:labels_per_class])
    labeled = np.sort(np.concatenate(chosen))
    rest = np.setdiff1d(np.arange(len(source)), labeled, assume_unique=True)
    if len(rest) == 0:
        raise DataError(
            f"labels_per_class={labels_per_class} leaves no sample without a label: it is all that "
            "the training split has. Use labels_per_class=null"
        )
    return source.take(labeled), source.take(rest)


def _checked(split: str, given: Split) -> Source:
    if isinstance(given, tuple):
        x, y = _samples(split, np.asarray(given[0])), _labels(split, np.asarray(given[1]))
        if len(x) != len(y):
            raise DataError(
                f"The {split} split needs one label a sample. "
                f"Received: {len(x)} samples and {len(y)} labels."
            )
        given = ArraySource(x, y)
    if len(given) == 0:
        raise DataError(f"The {split} split is empty.")
    return given


def _samples(split: str, x: np.ndarray) -> np.ndarray:
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise DataError(
            f"The {split} samples must be uint8 or float. Received: {x.dtype}. Convert them first, "
            "images of 0 … 255 with x.astype('uint8'), other numbers with x.astype('float32')."
        )
    if x.ndim < 2:
        raise DataError(
            f"The {split} samples must be an array (samples, …) with at least one axis more. "
            f"Received: shape {x.shape}."
        )
    if 0 in x.shape[1:]:
        raise DataError(f"The {split} samples have no values. Received: shape {x.shape}.")
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):  # what overflows becomes inf, and is reported below
            x = x.astype(np.float32, copy=False)
        for start in range(0, len(x), _CHUNK):
            finite = np.isfinite(x[start : start + _CHUNK]).all(axis=tuple(range(1, x.ndim)))
            if not finite.all():
                sample = start + int(np.argmin(finite))
                raise DataError(
                    f"The {split} samples must be finite. Received: NaN or infinity, first in "
                    f"sample {sample}."
                )
    return x[..., np.newaxis] if x.ndim == 3 else x  # (n, h, w) -> (n, h, w, 1)


def _labels(split: str, y: np.ndarray) -> np.ndarray:
    """Returns (n,) int32 of (n,), (n, 1) or one-hot (n, classes)."""
    if not (np.issubdtype(y.dtype, np.number) or y.dtype == np.bool_) or np.iscomplexobj(y):
        raise DataError(
            f"The {split} labels must be whole numbers 0 … classes - 1. Received: {y.dtype}."
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2:
        if not (np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()):
            raise DataError(
                f"The {split} labels of shape {y.shape} are not one-hot: every row must be zeros "
                "and a single one."
            )
        y = y.argmax(axis=1)
    if y.ndim != 1:
        raise DataError(
            f"The {split} labels must be (samples,) or one-hot (samples, classes). "
            f"Received: shape {y.shape}."
        )
    wrong = y[(y < 0) | (y != np.floor(y)) | (y > np.iinfo(np.int32).max) | ~np.isfinite(y)]
    if len(wrong):
        raise DataError(
            f"The {split} labels must be whole numbers 0 … classes - 1. Received: {wrong[0]}."
        )
    return y.astype(np.int32)


def _class_names(sources: dict[str, Source], given: Sequence[str] | None) -> tuple[str, ...]:
    """Returns one name a class, after checking that the splits belong together."""
    train = sources["train"]
    seen = np.unique(train.y)
    if given is None:
        classes = int(seen[-1]) + 1
        if len(seen) != classes:
            missing = int(np.argmin(np.isin(np.arange(len(seen) + 1), seen)))
            raise DataError(
                f"The train labels must number the classes from 0 without a gap. Received: "
                f"{seen[0]} … {seen[-1]}, with no sample of class {missing}."
            )
        names = tuple(str(index) for index in range(classes))
        rule = f"{classes} classes are in the train split"
    else:
        names = tuple(given)
        classes = len(names)
        rule = f"{classes} class names are given"
    if len(seen) < 2:
        raise DataError("The train split needs at least 2 classes. Received: 1.")
    for split, source in sources.items():
        if source.shape != train.shape or source.dtype != train.dtype:
            raise DataError(
                f"All splits need samples alike. Received: train {train.dtype} {train.shape}, "
                f"{split} {source.dtype} {source.shape}."
            )
        if source.y.max() >= classes:
            raise DataError(
                f"The {split} labels must be in 0 … {classes - 1}: {rule}. "
                f"Received: {source.y.max()}."
            )
    return names


def _normalization(train: Source, rule: NormalizeRule) -> Normalization:
    is_bytes = train.dtype == np.uint8
    if rule == "none" or (rule == "auto" and not is_bytes):
        return Normalization()
    if rule == "standardize":
        return _standardization(train)
    if is_bytes:
        return Normalization(multiply=1 / 255)
    low, high = np.inf, -np.inf
    for x, _ in train.batches(_CHUNK):
        low, high = min(low, float(x.min())), max(high, float(x.max()))
    return Normalization(subtract=low, multiply=1 / (high - low) if high > low else 1.0)


def _standardization(train: Source) -> Normalization:
    """Per channel, in one pass (Chan et al. 1983: merging the means and variances of chunks)."""
    count, mean, squares = 0, np.zeros(train.shape[-1]), np.zeros(train.shape[-1])
    for x, _ in train.batches(_CHUNK):
        flat = x.reshape(-1, x.shape[-1]).astype(np.float64)
        delta = flat.mean(axis=0) - mean
        total = count + len(flat)
        squares += flat.var(axis=0) * len(flat) + delta**2 * (count * len(flat) / total)
        mean += delta * (len(flat) / total)
        count = total
    deviation = np.sqrt(squares / count)
    deviation[deviation < 1e-7 * np.maximum(1.0, np.abs(mean))] = 1.0  # a constant channel
    return Normalization(mean.astype(np.float32), (1 / deviation).astype(np.float32))
