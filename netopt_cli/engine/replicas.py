"""What replicas and workers must agree on: gradients' norm, statistics, figures."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.contracts import Target


def clip_gradients(
    gradients: list[tf.Tensor],
    clip_norm: float,
    optimizer: keras.optimizers.Optimizer,
    context: Any,
    replicas: int,
) -> list[tf.Tensor]:
    """Clips by the norm of the gradient of the *global* batch, so that replicas do not matter.

    The optimizer adds up the replicas' gradients, hence the division; float16 gradients carry the
    loss scale, hence the scaled bound.
    """
    scale = getattr(optimizer, "dynamic_scale", 1.0)
    if replicas > 1:
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    clipped, _ = tf.clip_by_global_norm(gradients, clip_norm * tf.cast(scale, tf.float32))
    return [gradient / replicas for gradient in clipped] if replicas > 1 else clipped


def average_statistics(model: keras.Model, target: Target) -> None:
    """Makes the replicas agree on BatchNorm's moving statistics, which nobody else aggregates."""
    strategy = target.strategy
    statistics = [
        v.value for v in model.non_trainable_variables if v.dtype == "float32" and len(v.shape)
    ]
    if strategy.num_replicas_in_sync == 1 or not statistics:
        return

    @tf.function
    def mean() -> Any:
        def replica_mean() -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            values = [tf.identity(variable) for variable in statistics]
            return context.all_reduce(tf.distribute.ReduceOp.MEAN, values)

        return strategy.run(replica_mean)

    for variable, value in zip(statistics, mean(), strict=True):
        variable.assign(np.asarray(strategy.experimental_local_results(value)[0]))


def values_of_chief(values: tuple[float, ...], target: Target) -> tuple[float, ...]:
    """The chief's figures on every worker: decisions that depend on them must be the same ones,
    also where the workers' processors round differently."""
    if target.workers == 1:
        return values

    @tf.function
    def broadcast(own: tf.Tensor) -> Any:
        def replica_sum() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            mine = own if context.replica_id_in_sync_group == 0 else tf.zeros_like(own)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        return target.strategy.run(replica_sum)

    result = broadcast(tf.constant(values, tf.float32))
    return tuple(float(v) for v in target.strategy.experimental_local_results(result)[0])
