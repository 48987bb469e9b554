"""Residual branches left out at random in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from netopt_cli.graph.rebuild import rebuild
from netopt_cli.graph.residual import ResidualBlock


@keras.saving.register_keras_serializable(package="netopt")
class DropBranch(keras.layers.Layer):
    """Zero for a share of the samples in training, scaled up for the others; else the identity.

    Args:
        survival: Probability that a sample keeps its branch, in (0, 1].
    """

    def __init__(self, survival: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.survival = survival
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, x: Any, training: bool = False) -> Any:
        if not training:
            return x
        shape = [tf.shape(x)[0], *[1] * (len(x.shape) - 1)]
        drawn = keras.random.uniform(shape, seed=self.seed_generator)
        return x * tf.cast(drawn < self.survival, x.dtype) / self.survival

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "survival": self.survival}


def with_drops(
    model: keras.Model, blocks: Sequence[ResidualBlock], survivals: Sequence[float]
) -> keras.Model:
    """Puts a `DropBranch` at the end of the branch of each block; weights are kept."""
    by_add = {id(b.add): (b, p) for b, p in zip(blocks, survivals, strict=True)}

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if id(layer) in by_add:
            block, survival = by_add[id(layer)]
            inputs = list(args[0])
            drop = DropBranch(survival, name=f"{layer.name}_drop")
            inputs[1 - block.shortcut] = drop(inputs[1 - block.shortcut])
            args = (inputs, *args[1:])
        return new_layer(*args, **kwargs)

    return rebuild(model, call=call)[0]


def without_drops(model: keras.Model) -> keras.Model:
    """Takes every `DropBranch` out: at inference they do nothing."""

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if isinstance(layer, DropBranch) else new_layer(*args, **kwargs)

    return rebuild(model, call=call)[0]
