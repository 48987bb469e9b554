"""One network trained at several widths."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.dataset import Dataset
from netopt_cli.errors import InputError
from netopt_cli.graph.channels import read_channels
from netopt_cli.graph.slimmable import Narrow, train_narrow
from netopt_cli.suitability import needs_classes

Width = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class Slimmable:
    """Trains one set of weights that works at several widths (Yu et al., 2019).

    A narrow network has the first channels of every layer; BatchNorm has its own parameters for
    each width. Any graph that channels can be removed from will do. Each width is exported as a
    file of its own and has a row of its own; what comes after works with the full width alone, but
    for `quantize`, which exports all of them.

    Attributes:
        widths: Fractions of the channels, besides the full width.
        distill: Whether the narrow ones learn from the full one's predictions, not from the labels.
        epochs: Epochs of the stage.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    widths: tuple[Width, ...] = (0.75, 0.5, 0.25)
    distill: bool = True
    epochs: Annotated[int, Field(ge=1)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        narrow = {f"width {w:g}": Narrow(network.model, w) for w in sorted(self.widths)}
        network = context.fit(
            network,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            modifiers=[train_narrow(list(narrow.values()), distill=self.distill)],
        )
        for one in narrow.values():
            one.settle()
        return replace(network, variants={name: one.model for name, one in narrow.items()})

    def unsuited(self, data: Dataset) -> str | None:
        return needs_classes(data)

    def plan(self, preflight: Preflight) -> Network:
        preflight.refuse_after(
            "fake quantization", "narrow networks have ranges of their own; use opt=quantize after"
        )
        preflight.refuse_after(
            "codebook", f"training would leave it; put '{preflight.stage}' first"
        )
        if not self.widths:
            raise InputError("opt.slimmable.widths must name at least one width. Received: []")
        if not read_channels(preflight.network.model).groups:
            raise InputError(
                "opt.slimmable finds no channels to leave out in the model "
                f"'{preflight.network.model.name}'"
            )
        return preflight.network
