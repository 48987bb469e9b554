"""A network in hand while it is pruned: its masks, and its trainings under them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import keras
import numpy as np

from netopt_cli.contracts import Context, Modifier, Network
from netopt_cli.graph.masks import Masks, Pattern, SoFar, in_full
from netopt_cli.graph.saliency import Scores

_BATCH = 64


class MaskedTraining:
    """Prunes by scores and trains what is left.

    Attributes:
        kernels: Path -> the weights that are pruned.
        pattern: How masks are drawn from scores.
        start: The weights of the network at the beginning, for going back to.
        batches: Training samples that importances and statistics are found on.
    """

    def __init__(
        self,
        network: Network,
        context: Context,
        kernels: Mapping[str, keras.Variable],
        pattern: Pattern,
        *,
        learning_rate: float | None,
        scoring_samples: int,
    ) -> None:
        self.network = network
        self.context = context
        self.kernels = kernels
        self.pattern = pattern
        self.weights = list(kernels.values())
        self.masks = Masks(self.weights, keep_zeros="zeros" in network.properties)
        self.start = network.model.get_weights()
        self._learning_rate = learning_rate
        self._scoring_samples = scoring_samples

    @cached_property
    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        data, seed = self.context.data, self.context.seed
        return list(data.training_batches(self._scoring_samples, _BATCH, seed))

    @property
    def final_sparsity(self) -> float:
        """Over all that is pruned."""
        masks = self.pattern([np.zeros(tuple(w.shape)) for w in self.weights], in_full)
        return 1.0 - sum(int(m.sum()) for m in masks) / sum(m.size for m in masks)

    def prune(self, scores: Scores, so_far: SoFar = in_full) -> None:
        """Removes the least important weights for good."""
        self.masks.draw(self.pattern, scores, so_far)
        self.masks.apply()

    def draw(self, scores: Scores, so_far: SoFar = in_full) -> None:
        """Draws the masks alone; weights that have gone may return."""
        self.masks.draw(self.pattern, scores, so_far, may_return=True)

    def go_back(self) -> None:
        """Sets the weights that are left back to those of the start."""
        self.network.model.set_weights(self.start)
        self.masks.apply()

    def train(self, epochs: int, *modifiers: Modifier, restart: bool = False) -> None:
        """Trains the weights that are left."""
        hold = Modifier("hold the mask", constrain=self.masks.apply)
        self.fit(epochs, hold, *modifiers, restart=restart)

    def fit(self, epochs: int, *modifiers: Modifier, restart: bool = False) -> None:
        """Trains with these modifiers alone."""
        self.context.fit(
            self.network,
            epochs=epochs,
            learning_rate=self._learning_rate,
            modifiers=modifiers,
            restart=restart,
        )
