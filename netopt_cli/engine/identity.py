"""What decides on the result of a training, put into one name."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled

import netopt_cli
from netopt_cli.contracts import Modifier, Target
from netopt_cli.dataset import Dataset, FileSource, Source
from netopt_cli.engine.checkpoints import name_of
from netopt_cli.engine.settings import TrainSettings

_PROBES = 8
"""Samples whose augmentation stands for what the augmentation is."""

_digests: WeakKeyDictionary[Source, str] = WeakKeyDictionary()


def training_name(
    model: keras.Model,
    variables: Sequence[tf.Variable],
    data: Dataset,
    settings: TrainSettings,
    *,
    target: Target,
    seed: int,
    modifiers: Sequence[Modifier],
    stop_after: int | None,
    lineage: str,
) -> str:
    """Returns the name of a training that is about to begin.

    Args:
        variables: All that the compiled step reads, with its values: the weights, teachers, masks.
        lineage: What tells the modifiers' own code and numbers: the settings of the stages so far.
            It counts only where modifiers do more than to say which epochs may be kept.
    """
    plain = [Modifier(m.name, settles_at=m.settles_at) for m in modifiers]
    facts = {
        "code": code_digest(),
        "versions": (keras.__version__, tf.__version__, np.__version__),
        "hardware": (target.name, target.strategy.num_replicas_in_sync, target.threads,
                     os.cpu_count(), is_op_determinism_enabled()),
        "structure": structure(model),
        "trainable": [weight.trainable for weight in model.weights],
        "settings": sorted(asdict(settings).items()),
        "seed": seed,
        "stop_after": stop_after,
        "settles_at": max((m.settles_at for m in modifiers), default=0.0),
        "lineage": lineage if list(modifiers) != plain else "",
        "data": (_digest(data.train), _digest(data.validation), repr(data.normalization),
                 repr(data.task),
                 None if data.unlabeled is None else _digest(data.unlabeled)),
    }  # fmt: skip
    arrays = [variable.numpy() for variable in variables]
    return name_of(facts, [*arrays, *_probes(data, seed)])


def structure(model: keras.Model) -> str:
    """The layers of a model and how they are connected, without their names, which count how many
    there were before in the process."""
    config = json.loads(model.to_json())
    numbers: dict[str, int] = {}

    def nameless(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: nameless(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [nameless(inner) for inner in value]
        if key == "name" and isinstance(value, str):
            return numbers.setdefault(value, len(numbers))
        return numbers.get(value, value) if isinstance(value, str) else value

    return json.dumps(nameless(config), sort_keys=True)


@functools.cache
def code_digest() -> str:
    """SHA-256 (hex) of netopt's own source: another version may train otherwise."""
    root = Path(netopt_cli.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _digest(source: Source) -> str:
    """Of the content; of files on disk, names, sizes and the time of the last change."""
    if source not in _digests:
        changed = ""
        if isinstance(source, FileSource):
            changed = str(max(Path(path).stat().st_mtime_ns for path in source.paths))
        _digests[source] = f"{source.digest()} {changed}"
    return _digests[source]


def _probes(data: Dataset, seed: int) -> list[np.ndarray]:
    """Some normalized samples and what augmentation makes of them."""
    x = data.normalization.numpy(next(data.train.batches(_PROBES))[0])
    if data.augment is None:
        return [x]
    return [x, data.augment(tf.constant(x), tf.constant([seed, 0])).numpy()]
