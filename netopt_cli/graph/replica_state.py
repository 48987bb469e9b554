"""What each replica of a training remembers from step to step, for itself."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def of_replica(value: tf.Tensor, shape: Any = None) -> tf.Variable:
    """A variable that each replica has for itself; of the replicas' values the first is kept.

    Args:
        shape: Where it changes, with None for what is not known yet.
    """
    return tf.Variable(
        value,
        shape=shape,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
