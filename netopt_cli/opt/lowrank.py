"""Low-rank factorization of dense layers and convolutions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import keras
from pydantic import Field

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.graph.factorize import (
    Decomposition,
    Factorization,
    RankBy,
    choose_factorizations,
    factorize,
)


@dataclass(frozen=True)
class LowRank:
    """Replaces layers by thinner ones that compute nearly the same, then fine-tunes.

    The factors start from a truncated SVD of the kernel (convolutions: Zhang et al., 2016;
    Jaderberg et al., 2014; Kim et al., 2016). A layer is replaced only where its MACs and its
    weights both fall; the last factor keeps its name.

    Attributes:
        rank_by: `macs`: the whole model keeps `amount` of its MACs, and ranks fall where a MAC
            costs the least energy. `energy`: each layer keeps `amount` of its kernel's squared
            norm. `ratio`: each layer keeps `amount` of its full rank.
        amount: See `rank_by`.
        convolution: `channel` (k×k to fewer channels, then 1×1), `spatial` (k×1, then 1×k),
            `tucker` (1×1, k×k, 1×1), or `auto`: the best for each layer.
        epochs: Epochs of the fine-tuning; 0 does without.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
        exclude: Patterns of layer names to leave alone (`block_1_*`).
    """

    rank_by: RankBy = "macs"
    amount: Annotated[float, Field(gt=0, le=1)] = 0.5
    convolution: Decomposition = "auto"
    epochs: Annotated[int, Field(ge=0)] = 3
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    exclude: tuple[str, ...] = ()

    def __call__(self, network: Network, context: Context) -> Network:
        chosen, left = self._choose(network.model)
        for line in [*map(str, chosen), *left]:
            context.note(line)
        if not chosen:
            context.note("nothing was factorized")
        network = replace(network, model=factorize(network.model, chosen))
        if self.epochs:
            network = context.fit(network, epochs=self.epochs, learning_rate=self.learning_rate)
        return network

    def plan(self, preflight: Preflight) -> Network:
        order = f"put '{preflight.stage}' before it"
        preflight.refuse_after("zeros", f"the factors would have none of its zeros; {order}")
        preflight.refuse_after("codebook", f"the factors would not be on its codebook; {order}")
        preflight.refuse_after("fake quantization", f"the factors would lose it; {order}")
        # Ranks by energy depend on weights, and these are untrained: the trained ones are lower.
        chosen, _ = self._choose(preflight.network.model)
        return replace(preflight.network, model=factorize(preflight.network.model, chosen))

    def _choose(self, model: keras.Model) -> tuple[list[Factorization], list[str]]:
        return choose_factorizations(
            model,
            rank_by=self.rank_by,
            amount=self.amount,
            convolution=self.convolution,
            exclude=self.exclude,
        )
