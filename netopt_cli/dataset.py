"""What a data set is: three splits of labelled samples, and how they become a network's input.

A split is a `Source`: arrays in memory, or files that stay on disk. `assembly.assemble` makes a
checked `Dataset` of what a loader read.

TensorFlow is imported when a tensor is asked for, not before.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from netopt_cli.errors import DataError
from netopt_cli.inputs import Inputs
from netopt_cli.task.classification import Classification
from netopt_cli.tasks import Task

if TYPE_CHECKING:
    import tensorflow as tf

    from netopt_cli.sample_reader import SampleReader

Augment = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]
"""(x, seed) -> x in the graph: x float32 (batch, h, w, c), normalized; seed int32 (2,)."""

NO_LABEL = -1
"""Stands for the label of a sample that has none; `tf.one_hot` makes zeros of it, which the task's
loss and accuracy leave out."""


_BATCH = 500
_BATCH_VALUES = 2**21
"""Of a batch of large samples: 512 images of 64×64 pixels."""


@dataclass(frozen=True, eq=False)
class ArraySource:
    """A split in memory.

    Attributes:
        x: (n, *shape), uint8, float32 or int32.
        y: (n, …), labels as the task keeps them: (n,) int32 of classes.
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return self.x.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        return self.x.dtype

    def take(self, indices: np.ndarray) -> ArraySource:
        return ArraySource(self.x[indices], self.y[indices])

    def groups(self, indices: np.ndarray, y: np.ndarray) -> ArraySource:
        """Samples made of several: of indices (n, k) their x is (n, k, *shape)."""
        return ArraySource(self.x[indices], y)

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields raw (x, y) in order; the last batch may be short."""
        for start in range(0, len(self), batch_size):
            stop = start + batch_size
            yield self.x[start:stop], self.y[start:stop]

    def digest(self) -> str:
        """SHA-256 (hex) of the content."""
        digest = hashlib.sha256(f"{self.dtype} {self.x.shape}".encode())
        for array in (self.x, self.y):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class FileSource:
    """A split of image files that stay on disk: only their paths and labels are in memory.

    Attributes:
        paths: (n,) str, absolute.
        y: (n, …), labels as the task keeps them.
        image_shape: (height, width, channels) that every image is brought to; 1 or 3 channels.
    """

    paths: np.ndarray
    y: np.ndarray
    image_shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return self.image_shape

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    def take(self, indices: np.ndarray) -> FileSource:
        return FileSource(self.paths[indices], self.y[indices], self.image_shape)

    def groups(self, indices: np.ndarray, y: np.ndarray) -> ArraySource:
        """See `ArraySource.groups`; all images are read into memory."""
        x = np.concatenate([x for x, _ in self.batches(_BATCH)])
        return ArraySource(x[indices], y)

    def decode(self, path: tf.Tensor) -> tf.Tensor:
        """Reads one image in the graph: scalar string -> uint8 `image_shape`."""
        import tensorflow as tf

        height, width, channels = self.image_shape
        image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        if channels == 1:
            image = tf.image.rgb_to_grayscale(image)
        image = tf.image.resize(image, (height, width), antialias=True)
        image = tf.ensure_shape(image, self.image_shape)
        return tf.saturate_cast(tf.round(image), tf.uint8)

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields raw (x, y) in order; the last batch may be short.

        Raises:
            DataError: a file cannot be decoded; it is named.
        """
        import tensorflow as tf

        images = tf.data.Dataset.from_tensor_slices(self.paths.astype(str))
        images = images.map(self.decode, num_parallel_calls=tf.data.AUTOTUNE)
        start = 0
        try:
            for x in images.batch(batch_size).prefetch(1).as_numpy_iterator():
                yield x, self.y[start : start + len(x)]
                start += len(x)
        except tf.errors.OpError:
            self.take(np.arange(start, min(start + batch_size, len(self)))).check_files()
            raise

    def check_files(self) -> None:
        """Decodes every file; for finding out which one broke a compiled pipeline.

        Raises:
            DataError: names the first file that cannot be read or decoded.
        """
        import tensorflow as tf

        for path in self.paths:
            try:
                self.decode(tf.constant(str(path)))
            except tf.errors.NotFoundError as error:
                raise DataError(f"The image {path} is gone: put it back.") from error
            except tf.errors.OpError as error:
                raise DataError(f"Cannot decode the image {path}: {error.message}") from error

    def digest(self) -> str:
        """SHA-256 (hex) of the relative names, sizes and labels: no file is read.

        Raises:
            DataError: A file is gone.
        """
        root = os.path.commonpath([Path(path).parent for path in self.paths])
        digest = hashlib.sha256(f"{len(self)} {self.image_shape}".encode())
        for path in map(Path, self.paths):
            try:
                size = path.stat().st_size
            except OSError as error:
                raise DataError(f"The image {path} is gone: {error.strerror}") from error
            digest.update(f"{path.relative_to(root).as_posix()}\0{size}\0".encode())
        digest.update(np.ascontiguousarray(self.y).data)
        return digest.hexdigest()


Source = ArraySource | FileSource


def fitting_batch(shape: tuple[int, ...], most: int) -> int:
    """Samples that are looked at together: fewer than `most` where they are large."""
    return max(1, min(most, _BATCH_VALUES // math.prod(shape)))


def joined(first: Source, second: Source) -> Source:
    """The samples of two sources that are alike, as one."""
    y = np.concatenate([first.y, second.y])
    if isinstance(first, ArraySource) and isinstance(second, ArraySource):
        return ArraySource(np.concatenate([first.x, second.x]), y)
    assert isinstance(first, FileSource) and isinstance(second, FileSource)
    return replace(first, paths=np.concatenate([first.paths, second.paths]), y=y)


@dataclass(frozen=True, eq=False)
class Normalization:
    """x_float = (float32(x) - subtract) * multiply, broadcast on the last axes.

    Attributes:
        subtract: Scalar, (channels,) or, for spectra, (bins, 1); in the units of the raw data.
        multiply: Like `subtract`.
        dtype: Of the network's input; int32 goes in as it is.
    """

    subtract: np.ndarray | float = 0.0
    multiply: np.ndarray | float = 1.0
    dtype: Literal["float32", "int32"] = "float32"

    def numpy(self, x: np.ndarray) -> np.ndarray:
        if self.dtype == "int32":
            return x.astype(np.int32)
        subtract, multiply = np.float32(self.subtract), np.float32(self.multiply)
        return (x.astype(np.float32) - subtract) * multiply

    def tensor(self, x: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        if self.dtype == "int32":
            return tf.cast(x, tf.int32)
        subtract, multiply = np.float32(self.subtract), np.float32(self.multiply)
        return (tf.cast(x, tf.float32) - subtract) * multiply


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits, and how their samples become the input of a network.

    Attributes:
        shape: Of one sample, channels last.
        classes: Number of classes, labels are 0 … classes - 1; or, of another task, of the values
            that a network is to give.
        class_names: One for each; empty where they have none.
        train, validation, test: Raw samples, in a fixed order.
        normalization: From raw samples to the network's input.
        augment: Applied to normalized training batches, in the graph; None when there is none.
        fingerprint: SHA-256 (hex) of everything the loader read, before it was split: the same for
            every seed. Of arrays the content counts, of files their relative names, sizes and
            labels.
        task: What is to be learned.
        inputs: What the values of a sample are.
        notes: What is to be said of how it was read.
        reader: What makes a sample of what a person has, for `netopt predict`.
        unlabeled: What is left of the training samples under a label budget, their labels
            `NO_LABEL`; None without a budget.
        hidden_labels: Those that they have, (n,) int32, for `with_labels_of` alone.
    """

    name: str
    shape: tuple[int, ...]
    classes: int
    class_names: tuple[str, ...]
    train: Source
    validation: Source
    test: Source
    normalization: Normalization
    augment: Augment | None
    fingerprint: str
    task: Task = field(default_factory=Classification)
    inputs: Inputs = field(default_factory=Inputs)
    notes: tuple[str, ...] = ()
    reader: SampleReader | None = None
    unlabeled: Source | None = None
    hidden_labels: np.ndarray | None = None

    @property
    def unlabeled_count(self) -> int:
        return 0 if self.unlabeled is None else len(self.unlabeled)

    def with_labels_of(self, indices: np.ndarray) -> Dataset:
        """Returns the data with these of the `unlabeled` samples moved to `train`, labelled. For
        the run alone, which counts labels (`Trainings.buy_labels`)."""
        assert self.unlabeled is not None and self.hidden_labels is not None
        rest = np.setdiff1d(np.arange(len(self.unlabeled)), indices)
        bought = replace(self.unlabeled.take(indices), y=self.hidden_labels[indices])
        return replace(
            self,
            train=joined(self.train, bought),
            unlabeled=self.unlabeled.take(rest),
            hidden_labels=self.hidden_labels[rest],
        )

    def normalized_batches(
        self, source: Source, batch_size: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (x normalized, y) in order; the last batch may be short."""
        for x, y in source.batches(batch_size):
            yield self.normalization.numpy(x), y

    def training_batches(
        self, samples: int, batch_size: int, seed: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields normalized batches of so many training samples, drawn by the seed; fewer when
        there are fewer."""
        drawn = np.random.default_rng(seed).permutation(len(self.train))[:samples]
        return self.normalized_batches(self.train.take(drawn), batch_size)
