"""Low-rank factorization of dense layers, convolutions and embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import keras
import numpy as np
from pydantic import Field

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.graph.factorize import factorize
from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.naming import matches
from netopt_cli.graph.ranks import (
    Damage,
    Decomposition,
    Factorization,
    RankBy,
    choose_factorizations,
    energy_damage,
    energy_lost,
)
from netopt_cli.graph.response import TaskLoss, scan
from netopt_cli.graph.separable import split_separable

_RANKS = (0.75, 0.5, 0.25, 0.125, 0.06, 0.0)
"""Fractions of the full rank that are scanned; the last one is rank 1."""
_BATCH = 512
_TINY = 1e-6


@dataclass(frozen=True)
class LowRank:
    """Replaces layers by thinner ones that compute nearly the same, then fine-tunes.

    The factors start from a truncated SVD of the kernel (convolutions: Zhang et al., 2016;
    Jaderberg et al., 2014; Kim et al., 2016). A layer is replaced only where its MACs and its
    weights both fall; the last factor keeps its name. A separable convolution becomes its depthwise
    and its 1×1 part first, of which the second is factorized.

    Attributes:
        rank_by: `macs`: the whole model keeps `amount` of its MACs, and ranks fall where a MAC
            costs the least energy. `energy`: each layer keeps `amount` of its kernel's squared
            norm. `ratio`: each layer keeps `amount` of its full rank.
        amount: See `rank_by`.
        convolution: `channel` (k×k to fewer channels, then 1×1), `spatial` (k×1, then 1×k),
            `tucker` (1×1, k×k, 1×1), or `auto`: the best for each layer.
        embeddings: Fraction of its full rank that each embedding keeps, where that saves weights:
            thin rows are looked up and widened by a dense layer, a product more for each look-up
            (Lan et al., "ALBERT", 2020). None leaves embeddings alone.
        epochs: Epochs of the fine-tuning; 0 does without.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
        spread: What a rank costs with `macs`: the `energy` of the kernel that goes with it, or, for
            `sensitivity`, the rise of the loss on `scoring_samples` training samples when that
            layer alone has lower ranks (`graph.response`). Validation samples choose the epoch.
        scoring_samples: Training samples that `sensitivity` looks at.
        exclude: Patterns of layer names to leave alone (`block_1_*`).
    """

    rank_by: RankBy = "macs"
    amount: Annotated[float, Field(gt=0, le=1)] = 0.5
    convolution: Decomposition = "auto"
    embeddings: Annotated[float, Field(gt=0, lt=1)] | None = None
    epochs: Annotated[int, Field(ge=0)] = 3
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    spread: Literal["energy", "sensitivity"] = "energy"
    scoring_samples: Annotated[int, Field(ge=1)] = 512
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.spread == "sensitivity" and self.rank_by != "macs":
            raise ValueError(
                "spread=sensitivity shares out a budget, which there is with rank_by=macs alone. "
                f"Received: rank_by={self.rank_by}"
            )

    def __call__(self, network: Network, context: Context) -> Network:
        network = replace(network, model=self._split(network.model))
        is_scanned = self.spread == "sensitivity"
        damage_of = self._scan(network.model, context) if is_scanned else _by_energy
        chosen, left = self._choose(network.model, damage_of)
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
        model = self._split(preflight.network.model)
        chosen, _ = self._choose(model, _by_energy)
        return replace(preflight.network, model=factorize(model, chosen))

    def _split(self, model: keras.Model) -> keras.Model:
        return split_separable(model, lambda name: not matches(name, self.exclude))

    def _choose(
        self, model: keras.Model, damage_of: Callable[[keras.Layer], Damage]
    ) -> tuple[list[Factorization], list[str]]:
        return choose_factorizations(
            model,
            rank_by=self.rank_by,
            amount=self.amount,
            convolution=self.convolution,
            embeddings=self.embeddings,
            exclude=self.exclude,
            damage_of=damage_of,
        )

    def _scan(self, model: keras.Model, context: Context) -> Callable[[keras.Layer], Damage]:
        """Asks what lost energy costs each layer, whatever the decomposition that loses it."""
        samples = context.data.training_batches(self.scoring_samples, _BATCH, context.seed)
        loss = TaskLoss(context.data.task, model, samples)
        found = kernels(model)
        curves = {
            id(found[path]): curve for path, curve in scan(model, "rank", _RANKS, loss).items()
        }

        def damage_of(layer: keras.Layer) -> Damage:
            curve = curves[id(layer.kernel)]
            energies = energy_lost(layer, curve.levels)
            # Beyond the lowest rank the loss goes on rising as it has.
            end = curve.damages[-1] / max(energies[-1], _TINY)
            known, damages = [*energies, 1.0], [*curve.damages, end]
            # Where the loss does not rise, energy decides.
            return lambda lost: np.interp(lost, known, damages) + _TINY * lost

        return damage_of


def _by_energy(_: keras.Layer) -> Damage:
    return energy_damage
