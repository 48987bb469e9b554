"""Smaller tables for embeddings: the rows of rare ids become one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import keras
import numpy as np
from pydantic import Field

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.embeddings import chosen_embeddings, look_ups
from netopt_cli.graph.row_map import Removal, remove_rows

_BATCH = 512


@dataclass(frozen=True)
class RareRows:
    """Removes the rows of embeddings that training samples look up least; their ids share one row.
    Then trains on.

    Of two that are looked up alike the later one goes, for loaders number the most frequent first:
    an item that a network scores for every user is looked up as often as any other.

    Attributes:
        ratio: Fraction of the rows of each table that goes.
        epochs: Of the training after it; 0 does without.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
        exclude: Patterns of layer names to leave alone.
    """

    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    epochs: Annotated[int, Field(ge=0)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    exclude: tuple[str, ...] = ()

    def __call__(self, network: Network, context: Context) -> Network:
        removals = []
        for layer in self._chosen(network.model):
            samples = context.data.training_batches(len(context.data.train), _BATCH, context.seed)
            counts = look_ups(network.model, layer, (x for x, _ in samples))
            if counts is None:
                context.note(f"left as it is, it is in a nested model: {layer.name}")
                continue
            removal = self._removal(layer, counts)
            removals.append(removal)
            share = counts[removal.removed].sum() / max(1, counts.sum())
            context.note(
                f"{layer.name}: {layer.input_dim:,} rows → {removal.left:,}; what goes is "
                f"{share:.1%} of all look-ups"
            )
        network = replace(network, model=remove_rows(network.model, removals))
        if self.epochs:
            network = context.fit(network, epochs=self.epochs, learning_rate=self.learning_rate)
        return network

    def plan(self, preflight: Preflight) -> Network:
        order = f"put '{preflight.stage}' before it"
        preflight.refuse_after("zeros", f"the shared row would have none of its zeros; {order}")
        preflight.refuse_after("codebook", f"the shared row would not be on its codebook; {order}")
        preflight.refuse_after("fake quantization", f"the new tables would lose it; {order}")
        model = preflight.network.model
        # How often rows are looked up is not known yet, how many go is.
        removals = [
            self._removal(layer, np.zeros(layer.input_dim)) for layer in self._chosen(model)
        ]
        return replace(preflight.network, model=remove_rows(model, removals))

    def _removal(self, layer: keras.layers.Embedding, counts: np.ndarray) -> Removal:
        order = np.argsort(-counts, kind="stable")
        removed = np.zeros(len(counts), bool)
        removed[order[len(counts) - round(self.ratio * len(counts)) :]] = True
        return Removal(layer, removed)

    def _chosen(self, model: keras.Model) -> list[keras.layers.Embedding]:
        found = chosen_embeddings(model, self.exclude, where="opt.rare_rows.exclude")
        chosen = [layer for layer in found if round(self.ratio * layer.input_dim) > 1]
        if not chosen:
            raise InputError(
                f"opt.rare_rows finds no embedding to make smaller in '{model.name}': "
                + ("its tables have too few rows" if found else "it has none")
            )
        return chosen
