"""From what a person has — a sentence, a file — to a sample, as `netopt predict` needs it.

A loader gives the reader to its data set; it is kept with every exported file, as plain values.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from netopt_cli.errors import DataError, InputError

_KINDS = {
    "array": "netopt_cli.sample_reader:ArrayReader",
    "image": "netopt_cli.sample_reader:ImageReader",
    "ratings": "netopt_cli.rating_reader:RatingReader",
    "sound": "netopt_cli.sound_reader:SoundReader",
    "text": "netopt_cli.text:TextReader",
}
"""Kind -> module and class, imported when such a reader is restored."""

_IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


class SampleReader(Protocol):
    """Makes samples of what a person gives."""

    kind: str
    expects: str
    """What that is, for messages."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, of which `from_json` makes the same reader."""
        ...

    def read(self, values: Sequence[str]) -> list[tuple[str, np.ndarray]]:
        """(what it is called, the raw sample) of each, before normalization.

        Raises:
            InputError: One of them is not what it expects.
        """
        ...


@dataclass(frozen=True)
class ArrayReader:
    """NumPy files: `.npy` of one sample or of several, `.npz` with `x`.

    Attributes:
        shape: Of a sample.
        dtype: Of its values.
    """

    shape: tuple[int, ...]
    dtype: str
    kind = "array"
    expects = "a .npy or .npz file"

    def to_json(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "dtype": self.dtype}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ArrayReader:
        return cls(tuple(values["shape"]), values["dtype"])

    def read(self, values: Sequence[str]) -> list[tuple[str, np.ndarray]]:
        return [each for value in values for each in self._samples(value)]

    def _samples(self, value: str) -> list[tuple[str, np.ndarray]]:
        x = _load(value)
        # One sample or several, images with or without their axis of channels.
        readings = (x, x[np.newaxis], x[..., np.newaxis], x[np.newaxis, ..., np.newaxis])
        samples = next((each for each in readings if each.shape[1:] == self.shape), None)
        if samples is None:
            raise InputError(
                f"{value} must hold samples of shape {self.shape}. Received: {x.shape}"
            )
        names = [value] if len(samples) == 1 else [f"{value}[{i}]" for i in range(len(samples))]
        return list(zip(names, samples.astype(self.dtype), strict=True))


@dataclass(frozen=True)
class ImageReader:
    """Image files, brought to one size; NumPy files too.

    Attributes:
        shape: (height, width, channels), 1 or 3 channels.
    """

    shape: tuple[int, int, int]
    kind = "image"
    expects = f"an image ({', '.join(_IMAGES)}), or a .npy or .npz file"

    def to_json(self) -> dict[str, Any]:
        return {"shape": list(self.shape)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ImageReader:
        height, width, channels = values["shape"]
        return cls((height, width, channels))

    def read(self, values: Sequence[str]) -> list[tuple[str, np.ndarray]]:
        return [each for value in values for each in self._samples(value)]

    def _samples(self, value: str) -> list[tuple[str, np.ndarray]]:
        if Path(value).suffix.lower() not in _IMAGES:
            return ArrayReader(self.shape, "uint8").read([value])
        from netopt_cli.dataset import FileSource  # decodes with TensorFlow, 3 s to import

        if not Path(value).is_file():
            raise InputError(f"No such file: {value}")
        source = FileSource(np.array([value]), np.zeros(1, np.int32), self.shape)
        try:
            ((x, _),) = source.batches(1)
        except DataError as error:
            raise InputError(str(error)) from error
        return [(value, x[0])]


def restored(values: dict[str, Any]) -> SampleReader:
    """The reader that `to_json` and its kind were kept of.

    Raises:
        InputError: Of a kind that netopt does not know.
    """
    if values.get("kind") not in _KINDS:
        raise InputError(f"unknown kind of samples: {values.get('kind')!r}")
    module, _, name = _KINDS[values["kind"]].partition(":")
    return getattr(importlib.import_module(module), name).from_json(values)


def default_reader(shape: tuple[int, ...], dtype: np.dtype) -> SampleReader:
    """Of samples that a loader says nothing of."""
    if len(shape) == 3 and shape[-1] in (1, 3) and dtype == np.uint8:
        height, width, channels = shape
        return ImageReader((height, width, channels))
    return ArrayReader(shape, np.dtype(dtype).name)


def _load(value: str) -> np.ndarray:
    try:
        loaded = np.load(value, allow_pickle=False)
        return loaded["x"] if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except KeyError as error:
        raise InputError(f"{value} must have an array 'x'") from error
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"Cannot read {value} as a NumPy file: {error}") from error
