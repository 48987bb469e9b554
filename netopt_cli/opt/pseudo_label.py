"""Self-training: what the network is sure of, it takes for labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import keras
import numpy as np
from pydantic import Field

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.dataset import Dataset, Source, joined
from netopt_cli.few_labels import probabilities, repeated, require_unlabeled
from netopt_cli.starting import Start, refuse_late_scratch, started
from netopt_cli.suitability import needs_classes


@dataclass(frozen=True)
class PseudoLabel:
    """Trains on the labels and on the network's own predictions of samples without label, where it
    is sure of them; in rounds, each with the predictions of the network of the round before (Lee,
    "Pseudo-Label", ICML workshop 2013).

    Takes any data: nothing is augmented but by `data.augment`. The control is trained as many steps
    on the labelled samples alone.

    Attributes:
        threshold: Probability from which a prediction counts.
        balanced: Takes as many of each class as of the rarest one, the surest first: without it,
            what the network predicts too often it learns to predict more often.
        labeled_fraction: Share of the labelled samples in an epoch, by repetition.
        rounds: How often it predicts and trains.
        start: `scratch` from new weights in each round, `current` from those there are; `auto` is
            `scratch` for the first stage.
        epochs: Of each round: passes over the samples with a label or a prediction.
        learning_rate: Peak of each round's schedule; None is that of `train`.
    """

    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.95
    balanced: bool = True
    labeled_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
    rounds: Annotated[int, Field(ge=1)] = 3
    start: Start = "auto"
    epochs: Annotated[int, Field(ge=1)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        for number in range(1, self.rounds + 1):
            predicted = self._predicted(network.model, context.data)
            context.note(
                f"round {number}: surer than {self.threshold:g} of {len(predicted):,} samples "
                "without label"
            )
            if len(predicted) == 0:
                context.note("the network stays as it is: lower the threshold, or train it longer")
                break
            labeled = len(predicted) * self.labeled_fraction / (1 - self.labeled_fraction)
            data = repeated(context.data, round(labeled))
            data = replace(data, train=joined(data.train, predicted))
            network, restart = started(network, context, self.start)
            network = context.fit(
                network,
                epochs=self.epochs,
                learning_rate=self.learning_rate,
                restart=restart,
                data=data,
                control_data=repeated(context.control_data, len(data.train)),
            )
        return network

    def unsuited(self, data: Dataset) -> str | None:
        return needs_classes(data)

    def plan(self, preflight: Preflight) -> Network:
        refuse_late_scratch(preflight, self.start)
        require_unlabeled(preflight)
        return preflight.network

    def _predicted(self, model: keras.Model, data: Dataset) -> Source:
        """The samples without label that the model is sure of, with what it says of them."""
        assert data.unlabeled is not None  # see `plan`
        said = probabilities(model, data, data.unlabeled)
        sureness, y = said.max(axis=-1), said.argmax(axis=-1).astype(np.int32)
        of_class = [np.flatnonzero((y == label) & (sureness > self.threshold))
                    for label in range(data.classes)]  # fmt: skip
        if self.balanced:
            fewest = min(len(indices) for indices in of_class)
            of_class = [
                indices[np.argsort(-sureness[indices], kind="stable")[:fewest]]
                for indices in of_class
            ]
        chosen = np.sort(np.concatenate(of_class))
        return replace(data.unlabeled.take(chosen), y=y[chosen])
