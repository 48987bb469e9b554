"""The one way to make a `Dataset`: check, cut off missing splits, normalize.

Loaders (the `data` group, or a user's own) only read; all of them end in `assemble`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from netopt_cli.augment import AugmentOptions, augmentation
from netopt_cli.dataset import NO_LABEL, ArraySource, Augment, Dataset, Normalization, Source
from netopt_cli.errors import DataError
from netopt_cli.inputs import VALUES, Inputs
from netopt_cli.sample_reader import SampleReader, default_reader
from netopt_cli.task.classification import CLASSIFICATION
from netopt_cli.tasks import Sources, Task

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
    channel_axes: int = 1,
    augment: AugmentOptions | Augment | None = None,
    train_limit: SampleLimit | None = None,
    labels_per_class: SampleLimit | None = None,
    task: Task = CLASSIFICATION,
    inputs: Inputs = VALUES,
    reader: SampleReader | None = None,
    fingerprint: str | None = None,
    groups: Mapping[str, np.ndarray] | None = None,
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
        channel_axes: So many axes at the end tell the channels apart for `standardize`: 2 for
            spectra (frames, bins, 1), whose bins differ; 0 for signals that are one channel.
        augment: The arguments of `augment.augmentation`, or an augmentation of the loader's own;
            for images (and spectra) only.
        train_limit: Keeps that many training samples (stratified, by `seed`).
        labels_per_class: The label budget: so many training samples of each class (by `seed`) are
            `train`, the others `unlabeled`. Normalization goes by all of them.
        task: What is to be learned; it says what labels look like, and splits are stratified as it
            says.
        inputs: What the values of a sample are. Tokens and ids come as int32.
        reader: What makes a sample of what a person has; None where files of arrays or images do.
        fingerprint: SHA-256 (hex) of what was read, where a loader makes the samples of it by the
            seed; None is that of the samples.
        groups: For each given split (n,) names: samples of one name, as of one speaker, must be in
            one split. Splits are then cut off by whole groups.

    Raises:
        DataError: the data is malformed or inconsistent; see the message.
    """
    sources = {
        split: _checked(split, given, task)
        for split, given in (("train", train), ("validation", validation), ("test", test))
        if given is not None
    }
    _check_alike(sources)
    outputs = task.outputs(sources, class_names)
    digests = [f"{split} {source.digest()}" for split, source in sources.items()]
    train_groups = _apart(groups)
    for split, fraction, split_seed in (
        ("test", test_fraction, TEST_SPLIT_SEED),
        ("validation", validation_fraction, seed),
    ):
        if split not in sources:
            y = task.strata(sources["train"].y)
            chosen = _cut_off(y, split, fraction, split_seed, train_groups)
            rest = np.setdiff1d(np.arange(len(sources["train"])), chosen, assume_unique=True)
            sources[split] = sources["train"].take(chosen)
            sources["train"] = sources["train"].take(rest)
            train_groups = None if train_groups is None else train_groups[rest]
    if groups is not None and task.is_classification:
        _require_every_class(sources["train"], outputs.names)
    if train_limit is not None:
        sources["train"] = _limited(sources["train"], train_limit, outputs.count, seed, task)
    normalization = _normalization(sources["train"], normalize, channel_axes, inputs)
    unlabeled = hidden_labels = None
    if labels_per_class is not None:
        if not task.is_classification:
            raise DataError(
                f"labels_per_class needs one class a sample. Received: task={task.name}"
            )
        sources["train"], others = _within_budget(
            sources["train"], labels_per_class, outputs.names, seed
        )
        unlabeled, hidden_labels = replace(others, y=np.full_like(others.y, NO_LABEL)), others.y
    sources = task.prepared(sources, seed)
    shape = sources["train"].shape
    augment_batch = augment if callable(augment) else augmentation(**(augment or {}))
    if augment_batch is not None and not (len(shape) == 3 and task.augments and inputs.are_values):
        raise DataError(
            "augment needs images (height, width, channels), and labels that stay right. "
            f"Received: samples of shape {shape}, task={task.name}."
        )
    return Dataset(
        name=name,
        shape=shape,
        classes=outputs.count,
        class_names=outputs.names,
        train=sources["train"],
        validation=sources["validation"],
        test=sources["test"],
        normalization=normalization,
        augment=augment_batch,
        fingerprint=fingerprint or hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        task=task.fitted(sources["train"]),
        inputs=inputs,
        reader=reader or default_reader(shape, sources["train"].dtype),
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


def grouped_choice(groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Chooses whole groups at random until they have about `count` samples; never all of them.

    Args:
        groups: (n,) the group of each sample; at least 2 differ.

    Returns:
        (m,) sorted indices: of one group at least, m as near to `count` as the order allows.
    """
    names, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    totals = np.cumsum(sizes[order])[:-1]  # of the first 1, 2, … groups, one left
    last = int(np.argmin(np.abs(totals - count)))
    return np.flatnonzero(np.isin(members, order[: last + 1]))


def _cut_off(
    y: np.ndarray, split: str, fraction: float, seed: int, groups: np.ndarray | None
) -> np.ndarray:
    """Returns the indices of the samples that become the split.

    Args:
        y: (n,) what is to be in proportion.
    """
    if not 0 < fraction < 1:
        raise DataError(
            f"{split}_fraction must be in (0, 1). Received: {split}_fraction={fraction}"
        )
    count = round(len(y) * fraction)
    if count == 0 or count == len(y):
        empty = "train" if count else split
        raise DataError(
            f"{split}_fraction={fraction} of {len(y)} samples leaves the {empty} split empty."
        )
    if groups is None:
        return stratified_choice(y, count, seed)
    if len(np.unique(groups)) < 2:
        raise DataError(
            f"The {split} split needs a group (a speaker) of its own. Received: all samples that "
            f"are left for it and the train split belong to '{groups[0]}'."
        )
    return grouped_choice(groups, count, seed)


def _apart(groups: Mapping[str, np.ndarray] | None) -> np.ndarray | None:
    """Returns the groups of the train split, after checking that no other split has one of them."""
    if groups is None:
        return None
    for (split, names), (other, others) in combinations(groups.items(), 2):
        both = np.intersect1d(names, others)
        if len(both):
            raise DataError(
                f"A group (a speaker) must be in one split. Received: '{both[0]}' in {split} and "
                f"{other}."
            )
    return groups["train"]


def _require_every_class(train: Source, names: Sequence[str]) -> None:
    missing = np.setdiff1d(np.arange(len(names)), train.y)
    if len(missing):
        raise DataError(
            f"The train split has no sample of class '{names[missing[0]]}' left: its groups (its "
            "speakers) are all in validation or test. Give it more of them."
        )


def _limited(source: Source, train_limit: int, classes: int, seed: int, task: Task) -> Source:
    if task.is_classification and train_limit < classes:
        raise DataError(
            f"train_limit must be at least the number of classes, {classes}. "
            f"Received: train_limit={train_limit}"
        )
    if train_limit >= len(source):
        return source
    return source.take(stratified_choice(task.strata(source.y), train_limit, seed))


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


def _checked(split: str, given: Split, task: Task) -> Source:
    if isinstance(given, tuple):
        x, y = _samples(split, np.asarray(given[0])), task.labels(split, np.asarray(given[1]))
        if len(x) != len(y):
            raise DataError(
                f"The {split} split needs one label a sample. "
                f"Received: {len(x)} samples and {len(y)} labels."
            )
        return _not_empty(split, ArraySource(x, y))
    return replace(_not_empty(split, given), y=task.labels(split, given.y))


def _not_empty(split: str, given: Source) -> Source:
    if len(given) == 0:
        raise DataError(f"The {split} split is empty.")
    return given


def _samples(split: str, x: np.ndarray) -> np.ndarray:
    if x.dtype == np.int32:  # of tokens and ids, which loaders make themselves
        return x
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


def _check_alike(sources: Sources) -> None:
    """Raises:
    DataError: The samples of one split are not like those of another.
    """
    train = sources["train"]
    for split, source in sources.items():
        if source.shape != train.shape or source.dtype != train.dtype:
            raise DataError(
                f"All splits need samples alike. Received: train {train.dtype} {train.shape}, "
                f"{split} {source.dtype} {source.shape}."
            )


def _normalization(
    train: Source, rule: NormalizeRule, channel_axes: int, inputs: Inputs
) -> Normalization:
    if not inputs.are_values:
        return Normalization(dtype=inputs.dtype)
    is_bytes = train.dtype == np.uint8
    if rule == "none" or (rule == "auto" and not is_bytes):
        return Normalization()
    if rule == "standardize":
        return _standardization(train, channel_axes)
    if is_bytes:
        return Normalization(multiply=1 / 255)
    low, high = np.inf, -np.inf
    for x, _ in train.batches(_CHUNK):
        low, high = min(low, float(x.min())), max(high, float(x.max()))
    return Normalization(subtract=low, multiply=1 / (high - low) if high > low else 1.0)


def _standardization(train: Source, channel_axes: int) -> Normalization:
    """Per channel, in one pass (Chan et al. 1983: merging the means and variances of chunks)."""
    channels = train.shape[len(train.shape) - channel_axes :]
    count, mean, squares = 0, np.zeros(channels), np.zeros(channels)
    for x, _ in train.batches(_CHUNK):
        flat = x.reshape(-1, *channels).astype(np.float64)
        delta = flat.mean(axis=0) - mean
        total = count + len(flat)
        squares += flat.var(axis=0) * len(flat) + delta**2 * (count * len(flat) / total)
        mean += delta * (len(flat) / total)
        count = total
    deviation = np.sqrt(squares / count)
    is_constant = deviation < 1e-7 * np.maximum(1.0, np.abs(mean))
    deviation = np.where(is_constant, 1.0, deviation)
    return Normalization(mean.astype(np.float32), (1 / deviation).astype(np.float32))
