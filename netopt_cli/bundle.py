"""What a file needs beside it to be used: how samples are made, and what its outputs say.

It lies beside every exported network as `predict.json`, so that the folder of a stage can be
copied and used by itself. A person's file may be a stranger's: it names a task, never code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netopt_cli.components import build
from netopt_cli.dataset import Dataset, Normalization
from netopt_cli.errors import InputError
from netopt_cli.sample_reader import SampleReader, restored
from netopt_cli.tasks import Task

NAME = "predict.json"


@dataclass(frozen=True)
class Bundle:
    """Attributes:
    names: Of the classes or values that the outputs stand for.
    """

    reader: SampleReader
    normalization: Normalization
    task: Task
    names: tuple[str, ...]


def described(data: Dataset) -> bytes:
    """The content of `predict.json`."""
    reader, normalization = data.reader, data.normalization
    assert reader is not None, "assemble gives one to every data set"
    task = type(data.task)
    values = {
        "reader": {"kind": reader.kind, **reader.to_json()},
        "normalization": {
            "subtract": np.asarray(normalization.subtract, float).tolist(),
            "multiply": np.asarray(normalization.multiply, float).tolist(),
            "dtype": normalization.dtype,
        },
        "task": {"_target_": f"{task.__module__}.{task.__qualname__}", **_settings(data.task)},
        "names": list(data.class_names),
    }
    return json.dumps(values, ensure_ascii=False).encode()


def _settings(task: Task) -> dict[str, Any]:
    """Its arguments, and what it knows of the training split."""
    if not is_dataclass(task):
        return {}
    return {field.name: getattr(task, field.name) for field in fields(task)}


def read_bundle(folder: Path, allow: tuple[str, ...] = ()) -> Bundle:
    """Reads `predict.json` of the folder of a stage.

    Args:
        allow: Packages that a task of the user's own may come from.

    Raises:
        InputError: There is none, or it is damaged.
    """
    file = folder / NAME
    try:
        values = json.loads(file.read_bytes())
        scale = values["normalization"]
        return Bundle(
            restored(values["reader"]),
            Normalization(
                np.array(scale["subtract"], np.float32),
                np.array(scale["multiply"], np.float32),
                scale["dtype"],
            ),
            build(values["task"], allow=allow, where="task"),
            tuple(values["names"]),
        )
    except OSError as error:
        raise InputError(f"Cannot read {file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged: {error}") from error
