"""How sure a network has to be of a prediction for it to count, as it grows surer."""

from __future__ import annotations

from typing import Protocol

import tensorflow as tf

from netopt_cli.graph.replica_state import of_replica

_DECAY = 0.99
"""Of the moving averages: about the last hundred steps count. The paper has 0.999 for trainings of
a million steps."""


class Threshold(Protocol):
    """The thresholds of the classes."""

    def follow(self, predictions: tf.Tensor) -> None:
        """Takes note of the predictions of a step, (n, classes); in the graph."""
        ...

    def __call__(self) -> tf.Tensor:
        """The thresholds now, (classes,)."""
        ...


class FixedThreshold:
    """The same for each class, always (Sohn et al., "FixMatch", NeurIPS 2020)."""

    def __init__(self, value: float, classes: int) -> None:
        self._values = tf.fill([classes], value)

    def follow(self, predictions: tf.Tensor) -> None:
        """Nothing changes."""

    def __call__(self) -> tf.Tensor:
        return self._values


class AdaptiveThreshold:
    """A threshold for each class, from what was predicted so far (Wang et al., "FreeMatch", ICLR
    2023):

        threshold(c) = mean of the largest probability * mean p(c) / max over classes of mean p

    Both are moving averages that start at 1 / classes. A network that is not sure yet is asked for
    little, and so is a class that it hardly predicts. For the first hundred steps nearly all
    counts, right or wrong: a training of a few dozen steps wants a fixed threshold.
    """

    def __init__(self, classes: int) -> None:
        self._sureness = of_replica(tf.constant(1.0 / classes))
        self._mean = of_replica(tf.fill([classes], 1.0 / classes))

    def follow(self, predictions: tf.Tensor) -> None:
        sureness = tf.reduce_mean(tf.reduce_max(predictions, axis=-1))
        for average, new in (
            (self._sureness, sureness),
            (self._mean, tf.reduce_mean(predictions, axis=0)),
        ):
            average.assign(_DECAY * average.read_value() + (1.0 - _DECAY) * new)

    def __call__(self) -> tf.Tensor:
        mean = self._mean.read_value()
        return self._sureness.read_value() * mean / tf.reduce_max(mean)
