"""Cross-layer parameter sharing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.graph.sharing import Normalization, Start, choose_groups, share


@dataclass(frozen=True)
class Share:
    """Lets equal layers share one set of weights, then fine-tunes (Lan et al., 2020, ALBERT).

    The file stores shared weights once; the arithmetic stays. Convolutions that had a
    BatchNormalization each keep them: what the calls put out differs in mean and variance.

    Attributes:
        patterns: Of layer names; layers that match the same one, and are equal, share. The default
            lets all equal layers share; `block_*_conv_1` and `block_*_conv_2` keep the two apart.
        max_layers: At most so many layers share one set, neighbours first; None sets no limit.
        normalization: `per_call`: each call keeps its BatchNormalization, which is no longer fused
            into the convolution (a few per cent of latency). `shared`: they become one, whose
            statistics fit no call well; training hides that, inference does not.
        start: From the weights of the `first` layer of a group, or the `mean` of all.
        epochs: Epochs of the fine-tuning.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    patterns: Annotated[tuple[str, ...], Field(min_length=1)] = ("*",)
    max_layers: Annotated[int, Field(ge=2)] | None = None
    normalization: Normalization = "per_call"
    start: Start = "first"
    epochs: Annotated[int, Field(ge=1)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        shared, lines = self._shared(network)
        for line in lines:
            context.note(line)
        return context.fit(shared, epochs=self.epochs, learning_rate=self.learning_rate)

    def plan(self, preflight: Preflight) -> Network:
        order = f"put '{preflight.stage}' before it"
        if self.start == "mean":
            either = f"{order}, or use opt.{preflight.stage}.start=first"
            preflight.refuse_after("zeros", f"the mean of weights fills its zeros; {either}")
            preflight.refuse_after("codebook", f"the mean is not on its codebook; {either}")
        preflight.refuse_after("fake quantization", f"layers have ranges of their own; {order}")
        return self._shared(preflight.network)[0]

    def _shared(self, network: Network) -> tuple[Network, list[str]]:
        groups, left = choose_groups(
            network.model,
            patterns=self.patterns,
            most=self.max_layers,
            normalization=self.normalization,
        )
        shared = replace(
            network,
            model=share(network.model, groups, start=self.start),
            properties=network.properties | {"shared weights"},
        )
        return shared, [*map(str, groups), *left]
