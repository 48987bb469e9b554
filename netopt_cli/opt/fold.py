"""Folding of BatchNormalization into the weights beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.graph.folding import fold_batch_norms


@dataclass(frozen=True)
class Fold:
    """Folds BatchNormalization into convolutions and dense layers; nothing is trained.

    The network computes the same at inference, with fewer weights (Jacob et al., 2018). The export
    to LiteRT does so by itself, so that its file hardly changes; what changes is the network that
    later stages and other exports see. Fold last: training without the norms is harder.
    """

    def __call__(self, network: Network, context: Context) -> Network:
        model, folded, left = fold_batch_norms(network.model)
        before, after = network.model.count_params(), model.count_params()
        context.note(f"{len(folded)} BatchNormalizations folded, parameters {before:,} → {after:,}")
        for line in left:
            context.note(line)
        return replace(network, model=model)

    def plan(self, preflight: Preflight) -> Network:
        order = f"put '{preflight.stage}' before it"
        preflight.refuse_after("codebook", f"scaling moves the weights off the codebook; {order}")
        preflight.refuse_after("fake quantization", f"its ranges would be wrong; {order}")
        model, _, _ = fold_batch_norms(preflight.network.model)
        return replace(preflight.network, model=model)
