"""Smaller tables for embeddings: ids share rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import keras
from pydantic import Field

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.embeddings import chosen_embeddings
from netopt_cli.graph.shared_rows import (
    Combine,
    Sharing,
    hashed,
    quotient_remainder,
    share_rows,
)


@dataclass(frozen=True)
class HashEmbeddings:
    """Replaces the table of each embedding by smaller ones, as near as can be, and trains on.

    Attributes:
        method: `quotient_remainder`: two tables, of which each id has a pair of rows of its own
            (Shi et al., 2019, arXiv:1909.02107). `hash`: one table, ids of one remainder have the
            same row (Weinberger et al., 2009); loaders number the most frequent ids first, so that
            those do not collide with one another.
        ratio: Fraction of the rows that is left, of both tables together.
        combine: How the rows of a pair make one: `multiply` or `add`, value by value.
        epochs: Of the training after it; 0 does without.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
        exclude: Patterns of layer names to leave alone.
    """

    method: Literal["quotient_remainder", "hash"] = "quotient_remainder"
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.25
    combine: Combine = "multiply"
    epochs: Annotated[int, Field(ge=0)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    exclude: tuple[str, ...] = ()

    def __call__(self, network: Network, context: Context) -> Network:
        sharings = self._sharings(network.model)
        for sharing in sharings:
            context.note(str(sharing))
        network = replace(network, model=share_rows(network.model, sharings))
        if self.epochs:
            network = context.fit(network, epochs=self.epochs, learning_rate=self.learning_rate)
        return network

    def plan(self, preflight: Preflight) -> Network:
        order = f"put '{preflight.stage}' before it"
        preflight.refuse_after("zeros", f"rows that are shared would fill its zeros; {order}")
        preflight.refuse_after("codebook", f"shared rows would not be on its codebook; {order}")
        preflight.refuse_after("fake quantization", f"the new tables would lose it; {order}")
        model = preflight.network.model
        return replace(preflight.network, model=share_rows(model, self._sharings(model)))

    def _sharings(self, model: keras.Model) -> Sequence[Sharing]:
        chosen = chosen_embeddings(model, self.exclude, where="opt.hash_embeddings.exclude")
        found = [
            hashed(layer, self.ratio)
            if self.method == "hash"
            else quotient_remainder(layer, self.ratio, self.combine)
            for layer in chosen
        ]
        sharings = [sharing for sharing in found if sharing is not None]
        if not sharings:
            names = ", ".join(layer.name for layer in chosen)
            raise InputError(
                f"opt.hash_embeddings finds no embedding to make smaller in '{model.name}': "
                + (f"{names} have too few rows" if names else "it has none")
            )
        return sharings
