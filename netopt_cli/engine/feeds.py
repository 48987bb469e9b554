"""Where the batches of the compiled loop come from.

A feed deals in *local* batches, the part of the global batch that this worker computes. Every
worker draws the same order from (seed, epoch) and takes its own part of it, so that two workers of
batch 32 see what one process of batch 64 sees, and a run can start again at any epoch.

Splits in memory stay on the device as they are (uint8 as a rule); the compiled step gathers and
casts, which leaves no work for the host: no input pipeline, no copy. Splits on disk are streams.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from netopt_cli.dataset import ArraySource, FileSource, Source
from netopt_cli.errors import ConfigError


class Feed(Protocol):
    """Batches of one split, for use inside a `tf.function`."""

    steps: int
    """Steps an epoch."""
    batch_size: int
    """Samples of a step, over all workers and replicas."""

    def epoch(self, epoch: int, start: int = 0) -> Any:
        """Returns the handle of an epoch from step `start` on: given to the compiled function as
        an argument."""

    def draw(self, handle: Any, step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns step `step`'s local batch in the form that `samples` takes (in the graph)."""

    def samples(
        self, drawn: tuple[tf.Tensor, ...], replica: tf.Tensor, replicas: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns one local replica's part: raw x and labels (in the graph)."""


class _Order:
    """The order of samples: a permutation for each epoch, cut into this worker's batches."""

    def __init__(self, count: int, batch_size: int, worker: int, workers: int, seed: int) -> None:
        self._count = count
        self.batch_size = batch_size
        self._worker = worker
        self._workers = workers
        self._seed = seed
        self.steps = count // batch_size

    def __call__(self, epoch: int) -> np.ndarray:
        """Returns int32 (steps, local batch): indices into the split."""
        order = np.random.default_rng([self._seed, epoch]).permutation(self._count)
        order = order[: self.steps * self.batch_size].astype(np.int32)
        return order.reshape(self.steps, self._workers, -1)[:, self._worker]


class ResidentFeed:
    """A split that lies on the device whole."""

    def __init__(self, source: ArraySource, order: _Order) -> None:
        self._x = tf.constant(source.x)
        self._y = tf.constant(source.y)
        self._order = order
        self.steps = order.steps
        self.batch_size = order.batch_size

    def epoch(self, epoch: int, start: int = 0) -> tf.Tensor:
        return tf.constant(self._order(epoch))

    def draw(self, handle: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return (handle[step],)

    def samples(
        self, drawn: tuple[tf.Tensor, ...], replica: tf.Tensor, replicas: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        (index,) = _part(drawn, replica, replicas)
        return tf.gather(self._x, index), tf.gather(self._y, index)


class StreamFeed:
    """A split that is read from disk as it is needed; memory does not grow with the data."""

    def __init__(self, source: FileSource, order: _Order) -> None:
        self._source = source
        self._paths = tf.constant(source.paths)
        self._y = tf.constant(source.y)
        self._order = order
        self.steps = order.steps
        self.batch_size = order.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Any:
        order = self._order(epoch)[start:]

        def load(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return self._source.decode(self._paths[index]), self._y[index]

        samples = tf.data.Dataset.from_tensor_slices(order.reshape(-1)).map(
            load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        return iter(samples.batch(order.shape[1], drop_remainder=True).prefetch(2))

    def draw(self, handle: Any, step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return next(handle)

    def samples(
        self, drawn: tuple[tf.Tensor, ...], replica: tf.Tensor, replicas: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        x, y = _part(drawn, replica, replicas)
        return x, y


def make_feed(
    source: Source, batch_size: int, *, worker: int, workers: int, replicas: int, seed: int
) -> Feed:
    """Returns the feed of a split; a batch that is larger than the split becomes a smaller one.

    Raises:
        ConfigError: There is not one sample for each replica.
    """
    if len(source) < replicas:
        raise ConfigError(
            f"the training split has {len(source)} samples, fewer than the {replicas} replicas"
        )
    if batch_size > len(source):
        batch_size = len(source) // replicas * replicas
    order = _Order(len(source), batch_size, worker, workers, seed)
    if isinstance(source, ArraySource):
        return ResidentFeed(source, order)
    return StreamFeed(source, order)


def _part(
    local_batch: tuple[tf.Tensor, ...], replica: tf.Tensor, replicas: int
) -> tuple[tf.Tensor, ...]:
    if replicas == 1:
        return local_batch
    size = local_batch[0].shape[0] // replicas
    return tuple(tensor[replica * size : (replica + 1) * size] for tensor in local_batch)
