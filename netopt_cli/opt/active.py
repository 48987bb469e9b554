"""Active learning: the network says which samples are worth a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.dataset import Dataset
from netopt_cli.errors import InputError
from netopt_cli.few_labels import probabilities, require_unlabeled
from netopt_cli.starting import Start, refuse_late_scratch, started
from netopt_cli.suitability import needs_classes

Query = Literal["entropy", "margin", "confidence", "random"]


@dataclass(frozen=True)
class Active:
    """Has the samples labelled that the network is least sure of, and trains; in rounds (Lewis and
    Gale, "A Sequential Algorithm for Training Text Classifiers", SIGIR 1994; Settles, "Active
    Learning Literature Survey", 2009).

    The labels come from the data set, which plays the person who gives them; the column `labels`
    counts them, and later stages have them too. The control is trained alike on as many labels of
    samples drawn at random.

    Attributes:
        query: What is asked for: the highest `entropy` of the prediction; the smallest `margin` of
            the most probable class before the next; the least `confidence`, the largest
            probability; or `random` ones.
        labels: How many are bought, in all rounds together.
        rounds: How often it asks, and trains.
        start: `scratch` from new weights in each round, `current` from those there are; `auto` is
            `scratch` for the first stage.
        epochs: Of each round; None is `train.epochs`.
        learning_rate: Peak of each round's schedule; None is that of `train`.
    """

    query: Query = "margin"
    labels: Annotated[int, Field(ge=1)] = 100
    rounds: Annotated[int, Field(ge=1)] = 5
    start: Start = "auto"
    epochs: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __post_init__(self) -> None:
        if self.labels < self.rounds:
            raise ValueError(
                "labels must be >= rounds, as each round buys some. "
                f"Received: labels={self.labels}, rounds={self.rounds}"
            )

    def __call__(self, network: Network, context: Context) -> Network:
        generator = np.random.default_rng([context.seed, 6])
        ends = np.linspace(0, self.labels, self.rounds + 1).round().astype(int)
        for number, count in enumerate(np.diff(ends).tolist(), start=1):
            before = context.evaluate(network.model)
            assert context.data.unlabeled is not None  # see `plan`
            said = probabilities(network.model, context.data, context.data.unlabeled)
            # What is equally unsure is in random order.
            order = generator.permutation(len(said))
            unsure = np.argsort(-_unsureness(said[order], self.query), kind="stable")
            context.buy_labels(order[unsure[:count]])
            network, restart = started(network, context, self.start)
            network = context.fit(
                network,
                epochs=self.epochs or context.epochs,
                learning_rate=self.learning_rate,
                restart=restart,
                data=context.data,
                control_data=context.control_data,
            )
            context.note(
                f"round {number}: {len(context.data.train):,} labels, validation accuracy "
                f"{before:.2%} -> {context.evaluate(network.model):.2%}"
            )
        return network

    def unsuited(self, data: Dataset) -> str | None:
        return needs_classes(data)

    def plan(self, preflight: Preflight) -> Network:
        refuse_late_scratch(preflight, self.start)
        require_unlabeled(preflight)
        if self.labels >= preflight.unlabeled:
            raise InputError(
                f"opt.{preflight.stage}.labels must be less than the {preflight.unlabeled:,} "
                f"samples without label. Received: labels={self.labels}"
            )
        return preflight.network


def _unsureness(said: np.ndarray, query: Query) -> np.ndarray:
    """The more, the sooner a sample is asked for: (n,) of probabilities (n, classes)."""
    if query == "entropy":
        return -np.sum(said * np.log(np.maximum(said, 1e-12)), axis=-1)
    if query == "margin":
        second, first = np.sort(said, axis=-1)[:, -2:].T
        return second - first
    if query == "confidence":
        return -said.max(axis=-1)
    return np.zeros(len(said))
