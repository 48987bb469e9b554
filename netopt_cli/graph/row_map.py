"""A layer that gives ids other numbers, so that some of them share a row of a smaller table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from netopt_cli.graph.labels import Labels
from netopt_cli.graph.naming import unused_name
from netopt_cli.graph.rebuild import layers, plain_copy, rebuild
from netopt_cli.graph.rule_call import Call


@keras.saving.register_keras_serializable(package="netopt")
class RowMap(keras.layers.Layer):
    """Ids of any shape -> the numbers of their rows, int32, by a table (ids,)."""

    def __init__(self, ids: int, **kwargs: Any) -> None:
        super().__init__(**{"trainable": False, **kwargs})
        self.ids = ids

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.rows = self.add_weight(
            (self.ids,), "zeros", dtype="int32", trainable=False, name="rows"
        )
        self.built = True

    def call(self, x: Any) -> Any:
        return keras.ops.take(self.rows, keras.ops.cast(x, "int32"), axis=0)

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, dtype="int32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ids": self.ids}

    def netopt_channel_rule(self, call: Call) -> Labels:
        return Labels.fixed(call.shapes[0])


@dataclass(frozen=True, eq=False)
class Removal:
    """Rows of an embedding that give way to one that they share, which is the last.

    Attributes:
        removed: (rows,) bool.
    """

    layer: keras.layers.Embedding
    removed: np.ndarray

    @property
    def left(self) -> int:
        return int((~self.removed).sum()) + 1


def remove_rows(model: keras.Model, removals: Sequence[Removal]) -> keras.Model:
    """Rebuilds a model with smaller tables; the shared row begins as the mean of the removed."""
    taken = {layer.name for layer in layers(model)}
    by_layer = {id(removal.layer): removal for removal in removals}
    maps = {
        key: RowMap(len(removal.removed), name=unused_name(f"{removal.layer.name}_rows", taken))
        for key, removal in by_layer.items()
    }
    small: dict[int, keras.layers.Embedding] = {}

    def clone(layer: keras.Layer) -> keras.Layer | None:
        if id(layer) not in by_layer:
            return None
        small[id(layer)] = plain_copy(layer, input_dim=by_layer[id(layer)].left)
        return small[id(layer)]

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if id(layer) in maps:
            args = (maps[id(layer)](args[0]), *args[1:])
        return new_layer(*args, **kwargs)

    rebuilt, _ = rebuild(model, clone=clone, call=call)
    for key, removal in by_layer.items():
        table = removal.layer.embeddings.numpy()
        kept, removed = table[~removal.removed], table[removal.removed]
        small[key].set_weights([np.concatenate([kept, removed.mean(axis=0, keepdims=True)])])
        rows = np.full(len(table), len(kept))
        rows[~removal.removed] = np.arange(len(kept))
        maps[key].set_weights([rows])
    return rebuilt
