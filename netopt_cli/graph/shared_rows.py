"""Embeddings whose ids share rows: one small table, or two that are combined (Shi et al., 2019,
arXiv:1909.02107)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from netopt_cli.graph.naming import unused_name
from netopt_cli.graph.rebuild import layers, plain_copy, rebuild

Combine = Literal["multiply", "add"]

_ROUNDS = 20
_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Sharing:
    """What the table of one embedding becomes.

    Attributes:
        remainders: Rows of the table in which an id has the row id modulo their number.
        combine: With the row of a second table, that of the quotient; None where there is none, and
            ids of one remainder are the same.
    """

    layer: keras.layers.Embedding
    remainders: int
    combine: Combine | None

    @property
    def quotients(self) -> int:
        return -(-self.layer.input_dim // self.remainders) if self.combine else 0

    @property
    def rows(self) -> int:
        return self.remainders + self.quotients

    def __str__(self) -> str:
        parts = f"{self.remainders:,}" + (f" + {self.quotients:,}" if self.combine else "")
        return f"{self.layer.name}: {self.layer.input_dim:,} rows → {parts}"


def hashed(layer: keras.layers.Embedding, ratio: float) -> Sharing | None:
    """One table with that fraction of the rows; None where there is nothing to save."""
    rows = max(1, round(ratio * layer.input_dim))
    return Sharing(layer, rows, None) if rows < layer.input_dim else None


def quotient_remainder(
    layer: keras.layers.Embedding, ratio: float, combine: Combine
) -> Sharing | None:
    """Two tables with at most that fraction of the rows together, or with as few as there can be;
    each id has a pair of rows of its own. None where there is nothing to save."""
    total = layer.input_dim
    # The first table as large as fits: the fewer ids share a row of it, the better.
    rows = np.arange(1, total + 1)
    together = rows + -(-total // rows)
    fitting = np.flatnonzero(together <= ratio * total)
    best = fitting[-1] if len(fitting) else together.argmin()
    return Sharing(layer, int(rows[best]), combine) if together[best] < total else None


def share_rows(model: keras.Model, sharings: Sequence[Sharing]) -> keras.Model:
    """Rebuilds a model with smaller tables, which begin as near to the old ones as they can (least
    squares). The first table keeps the name of the layer."""
    taken = {layer.name for layer in layers(model)}
    by_layer = {id(sharing.layer): sharing for sharing in sharings}
    small = {key: _tables(sharing, taken) for key, sharing in by_layer.items()}

    def clone(layer: keras.Layer) -> keras.Layer | None:
        return small[id(layer)][0] if id(layer) in small else None

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if id(layer) not in by_layer:
            return new_layer(*args, **kwargs)
        sharing, (ids, *others) = by_layer[id(layer)], args
        row = new_layer(keras.ops.mod(ids, sharing.remainders), *others, **kwargs)
        if sharing.combine is None:
            return row
        quotient = keras.ops.floor_divide(ids, sharing.remainders)
        second = small[id(layer)][1](quotient, *others, **kwargs)
        return row * second if sharing.combine == "multiply" else row + second

    rebuilt, _ = rebuild(model, clone=clone, call=call)
    for key, sharing in by_layer.items():
        values = _fitted(sharing, sharing.layer.embeddings.numpy())
        for table, rows in zip(small[key], values, strict=True):
            table.set_weights([rows])
    return rebuilt


def _tables(sharing: Sharing, taken: set[str]) -> list[keras.layers.Embedding]:
    layer = sharing.layer
    tables = [plain_copy(layer, input_dim=sharing.remainders)]
    if sharing.combine:
        name = unused_name(f"{layer.name}_quotient", taken)
        tables.append(plain_copy(layer, input_dim=sharing.quotients, name=name))
    return tables


def _fitted(sharing: Sharing, table: np.ndarray) -> list[np.ndarray]:
    """The rows of the new tables, of which the old one, (rows, width), is nearly made."""
    quotients = -(-len(table) // sharing.remainders)
    missing = quotients * sharing.remainders - len(table)
    there = np.pad(np.ones((len(table), 1)), ((0, missing), (0, 0)))
    shape = (quotients, sharing.remainders, -1)
    there = there.reshape(shape)
    wanted = np.pad(table.astype(np.float64), ((0, missing), (0, 0))).reshape(shape)
    first = wanted.sum(axis=0) / np.maximum(there.sum(axis=0), 1)  # the mean of those that share
    if sharing.combine is None:
        return [first]
    # Value by value a sum or a product of two vectors, with cells that are missing at the end:
    # alternating least squares.
    if sharing.combine == "add":
        for _ in range(_ROUNDS):
            second = ((wanted - first) * there).sum(axis=1) / there.sum(axis=1)
            rest = (wanted - second[:, np.newaxis]) * there
            first = rest.sum(axis=0) / np.maximum(there.sum(axis=0), 1)
        return [first, second]
    second = np.ones((quotients, table.shape[1]))
    for _ in range(_ROUNDS):
        first = (wanted * second[:, np.newaxis]).sum(axis=0) / (
            (there * np.square(second)[:, np.newaxis]).sum(axis=0) + _TINY
        )
        second = (wanted * first).sum(axis=1) / ((there * np.square(first)).sum(axis=1) + _TINY)
    return [first, second]
