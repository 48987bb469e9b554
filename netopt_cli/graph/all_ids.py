"""A layer that names all things of a kind, for a network that scores each of them."""

from __future__ import annotations

from typing import Any

import keras

from netopt_cli.graph.labels import Labels
from netopt_cli.graph.rule_call import Call


@keras.saving.register_keras_serializable(package="netopt")
class AllIds(keras.layers.Layer):
    """Anything -> 0 … count - 1, int32 (1, count): the same for every sample of a batch."""

    def __init__(self, count: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "int32", "trainable": False, **kwargs})
        self.count = count

    def call(self, x: Any) -> Any:
        return keras.ops.expand_dims(keras.ops.arange(self.count, dtype="int32"), 0)

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor((1, self.count), dtype="int32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count}

    def netopt_channel_rule(self, call: Call) -> Labels:
        return Labels.fixed((1, self.count))
