"""The one way to make a data set of texts: split, train the vocabulary, encode."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field as Bounded
from typing_extensions import TypedDict

from netopt_cli.assembly import TEST_SPLIT_SEED, assemble, stratified_choice
from netopt_cli.dataset import Dataset
from netopt_cli.errors import DataError
from netopt_cli.inputs import Field, Inputs
from netopt_cli.task.classification import CLASSIFICATION
from netopt_cli.tasks import Task
from netopt_cli.text import TextReader, Unit, train_encoder

Texts = tuple[Sequence[str], np.ndarray]
"""Texts and their labels."""

_Split = tuple[np.ndarray, np.ndarray]
"""Texts (n,) of objects, and labels as the task keeps them."""

Count = Annotated[int, Bounded(ge=1)]
Fraction = Annotated[float, Bounded(gt=0, lt=1)]


class TextOptions(TypedDict, total=False):
    """How texts become tokens: see `text.train_encoder`."""

    unit: Unit
    vocabulary: Annotated[int, Bounded(ge=3)]
    least_count: Count
    length: Count
    lowercase: bool
    word_ngrams: Count
    character_ngrams: tuple[Annotated[int, Bounded(ge=0)], Annotated[int, Bounded(ge=0)]]
    buckets: Count
    tokenizer: str | None


def assemble_texts(
    name: str,
    *,
    train: Texts,
    test: Texts | None,
    class_names: Sequence[str] | None,
    seed: int,
    text: TextOptions,
    validation_fraction: float,
    test_fraction: float,
    train_limit: int | None = None,
    labels_per_class: int | None = None,
    task: Task = CLASSIFICATION,
) -> Dataset:
    """Cuts off the test split (the same for every seed) unless it is given, and the validation
    split; trains the vocabulary on what is left for training, labelled or not, and encodes all of
    them.

    Raises:
        DataError: Texts or labels are malformed; see the message.
    """
    digest = _digest(train, test)
    rest = _checked("train", train, task)
    if test is None:
        rest, held_out = _cut_off(rest, test_fraction, TEST_SPLIT_SEED, "test", task)
    else:
        held_out = _checked("test", test, task)
    rest, validation = _cut_off(rest, validation_fraction, seed, "validation", task)
    if not len(rest[0]):
        raise DataError("The train split is empty.")
    encoder = train_encoder(rest[0].tolist(), **text)
    if text.get("tokenizer") is not None:  # Read, not trained: another one makes other samples.
        digest.update(json.dumps(encoder.to_json()).encode())
    shape, ngrams_from = (encoder.length,), encoder.ngrams_from
    field = Field("text", "tokens", shape, encoder.vocabulary, ngrams_from)
    splits = [(encoder(x.tolist()), y) for x, y in (rest, validation, held_out)]
    return assemble(
        name,
        train=splits[0],
        validation=splits[1],
        test=splits[2],
        class_names=class_names,
        seed=seed,
        train_limit=train_limit,
        labels_per_class=labels_per_class,
        task=task,
        inputs=Inputs((field,)),
        reader=TextReader(encoder),
        fingerprint=digest.hexdigest(),
    )


def _checked(split: str, texts: Texts, task: Task) -> _Split:
    return np.array(texts[0], object), task.labels(split, np.asarray(texts[1]))


def _cut_off(
    texts: _Split, fraction: float, seed: int, split: str, task: Task
) -> tuple[_Split, _Split]:
    x, y = texts
    count = round(len(x) * fraction)
    if count in (0, len(x)):
        raise DataError(
            f"{split}_fraction={fraction} of {len(x)} texts leaves a split empty: give more texts"
        )
    chosen = stratified_choice(task.strata(y), count, seed)
    rest = np.setdiff1d(np.arange(len(x)), chosen, assume_unique=True)
    return (x[rest], y[rest]), (x[chosen], y[chosen])


def _digest(*splits: Texts | None) -> hashlib._Hash:
    digest = hashlib.sha256()
    for split in splits:
        for text, label in zip(*(split or ((), ())), strict=True):
            digest.update(f"{len(text)} {text}\0{label}\0".encode("utf-8", "surrogatepass"))
        digest.update(b"\1")
    return digest
