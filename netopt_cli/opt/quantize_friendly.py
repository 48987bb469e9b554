"""Rewriting a network into blocks that quantize well, before it is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from netopt_cli.contracts import Context, Network
from netopt_cli.graph.friendly import quantization_friendly


@dataclass(frozen=True)
class QuantizeFriendly:
    """Bounds the activations and orders Conv-BatchNorm-activation so that BatchNorm folds.

    As the first stage it starts from new weights; later it goes on with those there are.

    Attributes:
        epochs: Epochs of the stage; None is `train.epochs`.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    epochs: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        restart = context.is_first
        source = replace(network, model=context.fresh().model) if restart else network
        model, changes = quantization_friendly(source.model)
        for change in changes:
            context.note(change)
        if not changes:
            context.note("nothing to change: every block already quantizes well")
        return context.fit(
            replace(source, model=model),
            epochs=self.epochs or context.epochs,
            learning_rate=self.learning_rate,
            restart=restart,
        )
