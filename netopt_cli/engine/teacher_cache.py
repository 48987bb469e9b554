"""Teachers that several runs share: trained by the first that needs one, read by the others."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from netopt_cli import __version__
from netopt_cli.dataset import Dataset
from netopt_cli.engine.settings import TrainSettings
from netopt_cli.files import storage, write_atomically
from netopt_cli.keras_file import check_keras_file

_PROBES = 8
"""Samples whose augmentation stands for what the augmentation is."""


class KeptTeacher:
    """The place of one teacher in the folder, named after all that decides on its weights.

    Files are written whole or not at all, so that runs may share the folder at the same time: two
    that need a new teacher at once both train it, to the same result.

    Attributes:
        path: The `.keras` file, which need not exist.
    """

    def __init__(
        self, folder: Path, model: keras.Model, data: Dataset, settings: TrainSettings, seed: int
    ) -> None:
        """Finds the place of a teacher that is about to be trained.

        Args:
            folder: Made when something is written there.
            model: With the weights that its training starts from.
            data: What it is to be trained on.
            settings: Of its training.
            seed: Of its training.
        """
        self._model = model
        self.path = folder / f"{model.name}-{_digest(model, data, settings, seed)[:16]}.keras"

    def restore(self) -> bool:
        """Gives the model the weights of the kept teacher; says whether there is one."""
        if not self.path.exists():
            return False
        check_keras_file(self.path)
        kept = keras.saving.load_model(self.path, compile=False, safe_mode=True)
        self._model.set_weights(kept.get_weights())
        return True

    def save(self) -> None:
        """Keeps the model, which has been trained.

        Raises:
            StorageError: The disk is full or cannot be written.
        """
        with storage(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, self._model.save)


def _digest(model: keras.Model, data: Dataset, settings: TrainSettings, seed: int) -> str:
    """SHA-256 (hex) of the network and its first weights, the training, the data, the versions."""
    versions = (__version__, keras.__version__, tf.__version__)
    digest = hashlib.sha256(repr((versions, seed, asdict(settings), model.to_json())).encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).data)
    digest.update(f"{data.train.digest()} {data.validation.digest()}".encode())
    probes = data.normalization.numpy(next(data.train.batches(_PROBES))[0])
    digest.update(np.ascontiguousarray(probes).data)
    if data.augment is not None:
        changed = data.augment(tf.constant(probes), tf.constant([seed, 0])).numpy()
        digest.update(np.ascontiguousarray(changed.round(3)).data)
    return digest.hexdigest()
