"""Training with residual branches left out at random."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import keras
from pydantic import Field

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.residual import ResidualBlock, residual_blocks
from netopt_cli.graph.stochastic_depth import with_drops, without_drops
from netopt_cli.starting import Start, refuse_late_scratch, started


@dataclass(frozen=True)
class StochasticDepth:
    """Regularizes a residual network: blocks are left out at random in training (Huang et al.,
    2016).

    Each sample draws for itself, and branches that stay are divided by their probability, so that
    the network at inference is the whole one, unscaled: the layers that drop are taken out after
    the training and the exported file knows nothing of them. Blocks with an identity branch count.

    Attributes:
        survival: Probability that the last block stays; it falls linearly from 1 at the input.
        start: `scratch` from new weights, `current` from those there are; `auto` is `scratch` for
            the first stage.
        epochs: Epochs of the stage; None is `train.epochs`.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    survival: Annotated[float, Field(gt=0, le=1)] = 0.8
    start: Start = "auto"
    epochs: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        network, restart = started(network, context, self.start)
        model = network.model
        blocks = _blocks(model)
        share = (1.0 - self.survival) / len(blocks)
        survivals = [1.0 - number * share for number in range(1, len(blocks) + 1)]
        for block, survival in zip(blocks, survivals, strict=True):
            context.note(f"{block.add.name}: its branch stays with probability {survival:.2f}")
        trained = context.fit(
            replace(network, model=with_drops(model, blocks, survivals)),
            epochs=self.epochs or context.epochs,
            learning_rate=self.learning_rate,
            restart=restart,
        )
        return replace(trained, model=without_drops(trained.model))

    def plan(self, preflight: Preflight) -> Network:
        refuse_late_scratch(preflight, self.start)
        _blocks(preflight.network.model)
        return preflight.network


def _blocks(model: keras.Model) -> list[ResidualBlock]:
    blocks = residual_blocks(model)
    if not blocks:
        raise InputError(
            f"opt.stochastic_depth needs residual blocks whose shortcut is the identity; the model "
            f"'{model.name}' has none. arch=resnet and arch=mobilenet have some"
        )
    return blocks
