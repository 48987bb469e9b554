"""Convolutions that mix their kernel for each sample."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import keras
from pydantic import Field

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.conditional_convolution import (
    Mix,
    can_be_conditional,
    with_conditional_convolutions,
)
from netopt_cli.graph.naming import matches, require_matches
from netopt_cli.graph.rebuild import layers


@dataclass(frozen=True)
class ConditionalConvolution:
    """Replaces convolutions by conditionally parameterized ones, then trains on.

    CondConv (Yang et al., 2019): more parameters for little more arithmetic, `experts` kernels that
    are mixed for each sample.

    Attributes:
        experts: Kernels of each convolution.
        at: Patterns of names of the convolutions to replace; None is the last half of them, as in
            the paper.
        mix: What the file mixes: `kernels`, one convolution, in float; `outputs` of all experts,
            more arithmetic, but kernels that XNNPACK runs and every scheme of quantization.
        epochs: Epochs of the stage.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    experts: Annotated[int, Field(ge=2)] = 4
    at: tuple[str, ...] | None = None
    mix: Mix = "kernels"
    epochs: Annotated[int, Field(ge=1)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        chosen = self._chosen(network.model)
        for layer in chosen:
            context.note(f"{layer.name}: {self.experts} kernels, mixed for each sample")
        model = with_conditional_convolutions(
            network.model, chosen, self.experts, self.mix, context.seed
        )
        return context.fit(
            replace(network, model=model), epochs=self.epochs, learning_rate=self.learning_rate
        )

    def plan(self, preflight: Preflight) -> Network:
        order = f"put '{preflight.stage}' before it"
        preflight.refuse_after("zeros", f"the new kernels would have none of its zeros; {order}")
        preflight.refuse_after("codebook", f"the new kernels would not be on its codebook; {order}")
        preflight.refuse_after("fake quantization", f"the new kernels would lose it; {order}")
        model = preflight.network.model
        changed = with_conditional_convolutions(
            model, self._chosen(model), self.experts, self.mix, seed=0
        )
        return replace(preflight.network, model=changed)

    def _chosen(self, model: keras.Model) -> list[keras.layers.Conv2D]:
        possible = [layer for layer in layers(model) if can_be_conditional(layer)]
        if not possible:
            raise InputError(
                "opt.conditional_convolution needs a Conv2D without groups, channels last; the "
                f"model '{model.name}' has none"
            )
        if self.at is None:
            return possible[len(possible) // 2 :]
        names = [layer.name for layer in possible]
        require_matches(names, self.at, where="opt.conditional_convolution.at")
        return [layer for layer in possible if matches(layer.name, self.at)]
