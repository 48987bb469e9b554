"""A layer that adds to each step of a sequence a vector of its own."""

from __future__ import annotations

from typing import Any

import keras

from netopt_cli.graph.labels import Labels
from netopt_cli.graph.rule_call import Call, follows


@keras.saving.register_keras_serializable(package="netopt")
class Positions(keras.layers.Layer):
    """(batch, steps, width) plus a learned table (steps, width), as in BERT (2019)."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        begin = keras.initializers.RandomNormal(stddev=0.02)
        self.table = self.add_weight(input_shape[1:], begin, name="table")
        self.built = True

    def call(self, x: Any) -> Any:
        return x + self.table

    def netopt_channel_rule(self, call: Call) -> Labels:
        call.weight(self.table, None, follows(call.x[-1]))
        return call.x
