"""Your own texts: a CSV file with a column of texts and one of labels."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from netopt_cli.assembly import SampleLimit
from netopt_cli.dataset import Dataset
from netopt_cli.errors import DataError, did_you_mean
from netopt_cli.readers import require_file
from netopt_cli.text_splits import Fraction, TextOptions, Texts, assemble_texts

_MOST_CHARACTERS = 1_000_000
"""Of one cell; the module's own limit is an eighth of it."""


def load(
    seed: int,
    *,
    path: str,
    test_path: str | None = None,
    text_column: str = "text",
    label_column: str = "label",
    delimiter: str = ",",
    encoding: str = "utf-8",
    text: TextOptions,
    validation_fraction: Fraction = 0.1,
    test_fraction: Fraction = 0.2,
    train_limit: SampleLimit | None = None,
    labels_per_class: SampleLimit | None = None,
) -> Dataset:
    """Reads a CSV file whose first line names the columns; cells may be quoted and go over lines.

    A sample is the tokens of a text, int32 (length,). The vocabulary is trained on the training
    split and kept with every exported file, so that `netopt predict` takes sentences.

    Args:
        seed: Of the validation split and of `train_limit` and of `labels_per_class`.
        path: The file.
        test_path: A further file for the test split, which is cut off `path` otherwise.
        text_column, label_column: Names of columns. Labels are any words; the classes are sorted.
        encoding: Of the bytes: utf-8, latin-1, cp1252, …
        text: See `text.train_encoder`.
        validation_fraction: Share of the training texts.
        test_fraction: Share of all texts, the same for every seed.

    Raises:
        DataError: Naming the file and the line: bytes that are not of the encoding, a row with too
            few cells, an empty text or label.
    """
    columns = (text_column, label_column)
    texts, labels = _read(require_file(path), columns, delimiter, encoding)
    class_names = sorted(set(labels))
    test: Texts | None = None
    if test_path is not None:
        test_texts, test_labels = _read(require_file(test_path), columns, delimiter, encoding)
        test = (test_texts, _numbers(test_labels, class_names, test_path))
    return assemble_texts(
        "text_csv",
        train=(texts, _numbers(labels, class_names, path)),
        test=test,
        class_names=class_names,
        seed=seed,
        text=text,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        train_limit=train_limit,
        labels_per_class=labels_per_class,
    )


def _read(
    file: Path, columns: tuple[str, str], delimiter: str, encoding: str
) -> tuple[list[str], list[str]]:
    if len(delimiter) != 1:
        raise DataError(f"data.delimiter must be one character. Received: {delimiter!r}")
    rows = csv.reader(io.StringIO(_decoded(file, encoding), newline=""), delimiter=delimiter)
    csv.field_size_limit(_MOST_CHARACTERS)
    texts, labels = [], []
    try:
        header = next(rows, [])
        places = [_place(file, header, name) for name in columns]
        for row in rows:
            if not row:
                continue
            if len(row) <= max(places):
                raise DataError(
                    f"{file}, line {rows.line_num}: {len(header)} cells are needed, as in the "
                    f"first line. Received: {len(row)}"
                )
            text, label = (row[place].strip() for place in places)
            for name, value in zip(columns, (text, label), strict=True):
                if not value:
                    raise DataError(f"{file}, line {rows.line_num}: '{name}' is empty")
            texts.append(text)
            labels.append(label)
    except csv.Error as error:
        raise DataError(f"{file}, line {rows.line_num}: {error}") from error
    if not texts:
        raise DataError(f"{file} has no row after its first line, which names the columns")
    return texts, labels


def _decoded(file: Path, encoding: str) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except LookupError as error:
        raise DataError(f"data.encoding is unknown. Received: {encoding}") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{file}, line {line}: byte 0x{content[error.start]:02x} is not {encoding}. Say which "
            "encoding it is (data.encoding=cp1252, latin-1, …), or convert the file"
        ) from error


def _place(file: Path, header: Sequence[str], name: str) -> int:
    names = [cell.strip() for cell in header]
    if name not in names:
        raise DataError(f"{file} has no column '{name}'.{did_you_mean(name, names)}")
    return names.index(name)


def _numbers(labels: Sequence[str], class_names: Sequence[str], path: str) -> np.ndarray:
    of = {name: number for number, name in enumerate(class_names)}
    for label in labels:
        if label not in of:
            raise DataError(
                f"{path} has the label '{label}', which no training text has."
                f"{did_you_mean(label, class_names)}"
            )
    return np.array([of[label] for label in labels], np.int32)
