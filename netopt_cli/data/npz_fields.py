"""Your own arrays of several kinds a sample, as an image and a text: one `.npz` file."""

from collections.abc import Mapping, Sequence

import numpy as np

from netopt_cli.assembly import Fraction, SampleLimit, assemble
from netopt_cli.dataset import Dataset
from netopt_cli.errors import ConfigError, DataError
from netopt_cli.inputs import UNKNOWN, Field, Inputs, Kind
from netopt_cli.npz_file import NpzArrays, npz_file
from netopt_cli.task.classification import CLASSIFICATION
from netopt_cli.tasks import Task

_RESOLUTION = 2**15 - 1
"""Steps from 0 to the largest float of a field, which is kept in whole numbers."""


def load(
    seed: int,
    *,
    path: str,
    fields: Mapping[str, Kind],
    class_names: Sequence[str] | None = None,
    validation_fraction: Fraction = 0.1,
    train_limit: SampleLimit | None = None,
    labels_per_class: SampleLimit | None = None,
    task: Task = CLASSIFICATION,
) -> Dataset:
    """Loads for each field `NAME_train` and `NAME_test`, with `y_train` and `y_test`; and the same
    of `validation` when it is there.

    Values are uint8, which counts from 0 to 1, or float, in steps of 1/32767 of the largest of the
    training split; images (n, h, w) get a channel axis. Tokens are whole numbers (n, length), 0 is
    padding at the end and 1 unknown; ids are whole numbers (n,) or (n, several). What the training
    split has no token for becomes the unknown one.

    Args:
        seed: Of the validation split and of `train_limit` and of `labels_per_class`.
        path: The file.
        fields: Name -> `values`, `tokens` or `ids`, in the order in which they lie in a sample.
        class_names: One name a class; when None, the numbers seen in `y_train`.
        validation_fraction: Share of the training samples; unused when the file has a validation
            split.
        task: What is to be learned.

    Raises:
        ConfigError: There are not two fields.
        DataError: The file is missing, malformed or inconsistent.
    """
    if len(fields) < 2:
        raise ConfigError(
            "data.fields must name two fields at least: {image: values, text: tokens}. Received: "
            f"{dict(fields)}; for one use data=npz"
        )
    with npz_file(path) as arrays:
        train = {name: _read(arrays, name, "train", kind) for name, kind in fields.items()}
        made = [_field(name, fields[name], x) for name, x in train.items()]
        has_validation = "y_validation" in arrays
        splits = {"train": (_joined(made, train, "train"), arrays["y_train"])}
        for split in ("test", *(["validation"] if has_validation else [])):
            found = {name: _read(arrays, name, split, kind) for name, kind in fields.items()}
            splits[split] = (_joined(made, found, split), arrays[f"y_{split}"])
    return assemble(
        "npz_fields",
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits["test"],
        class_names=class_names,
        seed=seed,
        validation_fraction=validation_fraction,
        train_limit=train_limit,
        labels_per_class=labels_per_class,
        task=task,
        inputs=Inputs(tuple(made)),
    )


def _read(arrays: NpzArrays, name: str, split: str, kind: Kind) -> np.ndarray:
    """The array of a field, with its axes as the field has them."""
    x = arrays[f"{name}_{split}"]
    where = f"'{name}_{split}'"
    if kind == "values":
        if not (x.dtype == np.uint8 or np.issubdtype(x.dtype, np.floating)) or x.ndim < 2:
            raise DataError(
                f"{where}, values, must be uint8 or float, (samples, …) with an axis more. "
                f"Received: {x.dtype} {x.shape}."
            )
        if not np.isfinite(x).all():
            raise DataError(f"{where} must be finite. Received: NaN or infinity.")
        return x[..., np.newaxis] if x.ndim == 3 else x
    x = x[:, np.newaxis] if x.ndim == 1 and kind == "ids" else x
    if not np.issubdtype(x.dtype, np.integer) or x.ndim != 2 or (x.size and x.min() < 0):
        raise DataError(
            f"{where}, {kind}, must be whole numbers from 0, (samples, length). Received: "
            f"{x.dtype} {x.shape}{f', from {x.min()}' if x.size else ''}."
        )
    return x


def _field(name: str, kind: Kind, x: np.ndarray) -> Field:
    if kind != "values":
        vocabulary = max(UNKNOWN, int(x.max(initial=0))) + 1
        return Field(name, kind, x.shape[1:], vocabulary)
    largest = float(np.abs(x).max(initial=0)) or 1.0
    step = 1 / 255 if x.dtype == np.uint8 else largest / _RESOLUTION
    return Field(name, kind, x.shape[1:], multiply=step)


def _joined(fields: Sequence[Field], found: Mapping[str, np.ndarray], split: str) -> np.ndarray:
    """int32 (n, values of all fields)."""
    parts = []
    for field in fields:
        x = found[field.name]
        if x.shape[1:] != field.shape:
            raise DataError(
                f"'{field.name}_{split}' must have samples of {field.shape} as the train split. "
                f"Received: {x.shape[1:]}."
            )
        if field.kind != "values":
            x = np.where(x < field.vocabulary, x, UNKNOWN)
        elif x.dtype != np.uint8:
            limits = np.iinfo(np.int32)
            x = np.rint(x.astype(np.float64) / field.multiply).clip(limits.min, limits.max)
        parts.append(x.reshape(len(x), -1).astype(np.int32))
    counts = {field.name: len(part) for field, part in zip(fields, parts, strict=True)}
    if len(set(counts.values())) > 1:
        raise DataError(f"All fields of {split} need as many samples. Received: {counts}.")
    return np.concatenate(parts, axis=1)
