"""DropBlock: dropout of whole regions of a feature map."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from netopt_cli.graph.rule_call import Call


@keras.saving.register_keras_serializable(package="netopt")
class DropBlock2D(keras.layers.Layer):
    """Sets squares of each channel to zero in training, and scales up what is left (Ghiasi et al.,
    2018).

    Args:
        rate: Expected fraction of the values that are dropped, in [0, 1).
        block_size: Side of the squares; on a smaller map they are as large as the map.
        seed: Of the squares.
    """

    def __init__(
        self, rate: float, block_size: int = 3, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.block_size = block_size
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def call(self, x: Any, training: bool = False) -> Any:
        if not training or not self.rate:
            return x
        height, width = x.shape[1:3]
        side = min(self.block_size, height, width)
        # Blocks begin where they fit, so often that the expected share of dropped values is right.
        starts = (height - side + 1, width - side + 1)
        begins = self.rate * height * width / (side**2 * starts[0] * starts[1])
        shape = (tf.shape(x)[0], *starts, x.shape[3])
        draw = keras.random.uniform(shape, seed=self.seed_generator)
        blocks = tf.cast(draw < begins, tf.float32)
        margin = side - 1
        blocks = tf.pad(blocks, [[0, 0], [margin, margin], [margin, margin], [0, 0]])
        dropped = tf.nn.max_pool2d(blocks, side, strides=1, padding="VALID")
        kept = 1.0 - dropped
        scale = tf.math.divide_no_nan(1.0, tf.reduce_mean(kept))
        return x * tf.cast(kept * scale, x.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rate": self.rate,
            "block_size": self.block_size,
            "seed": self.seed,
        }

    def netopt_channel_rule(self, call: Call) -> Any:
        """Channels are dropped each by itself: see `graph.rules`."""
        return call.x
