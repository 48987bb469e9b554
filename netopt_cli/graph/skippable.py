"""Residual blocks that a gate runs or skips, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from netopt_cli.graph.rebuild import rebuild
from netopt_cli.graph.residual import ResidualBlock

Gate = Literal["learned", "open", "closed"]


@keras.saving.register_keras_serializable(package="netopt")
class SkippableBlock(keras.layers.Layer):
    """x + gate(x) · branch(x), with a gate of 0 or 1 for each sample (Wang et al., 2018, SkipNet).

    The gate sees the mean of each channel, through one hidden layer. In training its decision is
    drawn (logistic noise) and its gradient that of the sigmoid (Jang et al., 2017; Veit and
    Belongie, 2018); at inference it is the sign. At batch 1, which is what is exported, a skipped
    branch is not computed: the file has the operation IF.

    Outputs: float (batch, …) as x, and what the gate said, (batch,).

    Args:
        branch: Functional model from x to the branch.
        hidden: Units of the gate's hidden layer.
        gate: `learned`, or fixed: `open` or `closed`.
    """

    def __init__(
        self, branch: keras.Model, hidden: int = 16, gate: Gate = "learned", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.branch = branch
        self.hidden = hidden
        self.gate = gate
        self.squeeze = keras.layers.Dense(hidden, activation="relu", name="gate_hidden")
        # Blocks run at the beginning, as they did before there was a gate.
        start = keras.initializers.Constant(2.0)
        self.decide = keras.layers.Dense(1, bias_initializer=start, name="gate")
        self.seed_generator = keras.random.SeedGenerator()

    @property
    def netopt_integer_refusal(self) -> str | None:
        is_fixed = self.gate != "learned"
        return None if is_fixed else "has a branch that may be skipped, which cannot be calibrated"

    def build(self, input_shape: Any) -> None:
        self.squeeze.build((None, input_shape[-1]))
        self.decide.build((None, self.hidden))

    def call(self, x: Any, training: bool = False) -> tuple[Any, Any]:
        gate = self._gate(x, training)
        if self.gate == "open":
            return x + self.branch(x, training=training), gate
        if self.gate == "closed":
            return x, gate
        if not training and x.shape[0] == 1:
            y = tf.cond(gate[0] > 0.5, lambda: x + self.branch(x, training=False), lambda: x)
            y.set_shape(x.shape)
            return y, gate
        shape = [-1, *[1] * (len(x.shape) - 1)]
        return x + tf.reshape(gate, shape) * self.branch(x, training=training), gate

    def _gate(self, x: Any, training: bool) -> tf.Tensor:
        if self.gate != "learned":
            count = x.shape[0] or tf.shape(x)[0]
            return tf.fill([count], 1.0 if self.gate == "open" else 0.0)
        means = tf.reduce_mean(x, list(range(1, len(x.shape) - 1)))
        score = tf.cast(self.decide(self.squeeze(means))[:, 0], tf.float32)
        if not training:
            return tf.cast(score > 0.0, tf.float32)
        uniform = keras.random.uniform(
            tf.shape(score), minval=1e-6, maxval=1.0 - 1e-6, seed=self.seed_generator
        )
        score += tf.math.log(uniform) - tf.math.log(1.0 - uniform)
        soft = tf.sigmoid(score)
        return soft + tf.stop_gradient(tf.cast(score > 0.0, tf.float32) - soft)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape, (input_shape[0],)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "branch": keras.saving.serialize_keras_object(self.branch),
            "hidden": self.hidden,
            "gate": self.gate,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SkippableBlock:
        branch = keras.saving.deserialize_keras_object(config["branch"])
        return cls(**{**config, "branch": branch})


def with_gates(model: keras.Model, blocks: Sequence[ResidualBlock], hidden: int) -> keras.Model:
    """Makes blocks skippable; their weights are kept, and the gates are open at first."""
    by_add = {id(block.add): block for block in blocks}
    inside = {id(layer) for block in blocks for layer in block.layers}

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if id(layer) in inside:
            return keras.tree.flatten(args[0])[0]  # It is called within the block instead.
        if id(layer) not in by_add:
            return new_layer(*args, **kwargs)
        block = by_add[id(layer)]
        whole = keras.Model(block.x, block.branch, name=f"{layer.name}_branch")
        branch, _ = rebuild(whole)
        gated = SkippableBlock(branch, hidden, name=layer.name)
        return gated(args[0][block.shortcut])[0]

    return rebuild(model, call=call)[0]


def skippable_blocks(model: keras.Model) -> list[SkippableBlock]:
    return [layer for layer in model.layers if isinstance(layer, SkippableBlock)]


def with_fixed_gates(model: keras.Model, gates: Mapping[str, Gate]) -> keras.Model:
    """A copy in which some gates, by the name of their block, are open or closed for good."""

    def clone(layer: keras.Layer) -> keras.Layer | None:
        if not isinstance(layer, SkippableBlock) or layer.name not in gates:
            return None
        return SkippableBlock.from_config({**layer.get_config(), "gate": gates[layer.name]})

    return rebuild(model, clone=clone)[0]
