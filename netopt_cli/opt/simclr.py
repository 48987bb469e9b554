"""Contrastive pre-training without labels, then training on the labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from netopt_cli.augment import AugmentOptions, augmentation
from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.dataset import NO_LABEL, Dataset, joined
from netopt_cli.errors import InputError
from netopt_cli.few_labels import repeated, require_images, require_unlabeled
from netopt_cli.graph.contrastive import representation, two_views
from netopt_cli.starting import Start, refuse_late_scratch, started
from netopt_cli.suitability import needs_classes


@dataclass(frozen=True)
class SimClr:
    """Trains the network to tell two augmented views of a sample from all other samples, on all
    training samples and without their labels; then all of it on the labelled ones (Chen et al., "A
    Simple Framework for Contrastive Learning of Visual Representations", ICML 2020).

    The representation is what the last layer gets; a projection head stands behind it for the
    pre-training. The negatives are the other samples of the batch: `train.batch_size` wants to be
    large. The control trains on the labelled samples alone, as many steps in both parts.

    Attributes:
        views: The augmentation that makes a view: see `augment.augmentation`.
        temperature: Of the likeness of views.
        projection: Size of the embeddings that are compared.
        pretrain_epochs: Passes over all training samples.
        pretrain_learning_rate: Peak of the pre-training's schedule; None is that of `train`.
        start: `scratch` from new weights, `current` from those there are; `auto` is `scratch` for
            the first stage.
        epochs: Of the training on the labels; None is `train.epochs`.
        learning_rate: Peak of its schedule; None is that of `train`.
    """

    views: AugmentOptions | None = None
    temperature: Annotated[float, Field(gt=0)] = 0.5
    projection: Annotated[int, Field(ge=1)] = 64
    pretrain_epochs: Annotated[int, Field(ge=1)] = 10
    pretrain_learning_rate: Annotated[float, Field(gt=0)] | None = None
    start: Start = "auto"
    epochs: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        network, restart = started(network, context, self.start)
        view = augmentation(**(self.views or {}))
        assert view is not None  # see `plan`
        everything = _without_labels(context.data)
        contrast = two_views(
            network.model, view, size=self.projection, temperature=self.temperature
        )
        network = context.fit(
            network,
            epochs=self.pretrain_epochs,
            learning_rate=self.pretrain_learning_rate,
            modifiers=[contrast],
            restart=restart,
            data=everything,
            control_data=repeated(context.control_data, len(everything.train)),
        )
        return context.fit(
            network, epochs=self.epochs or context.epochs, learning_rate=self.learning_rate
        )

    def unsuited(self, data: Dataset) -> str | None:
        return needs_classes(data)

    def plan(self, preflight: Preflight) -> Network:
        refuse_late_scratch(preflight, self.start)
        require_unlabeled(preflight)
        require_images(preflight)
        representation(preflight.network.model)
        if augmentation(**(self.views or {})) is None:
            raise InputError(
                f"opt.{preflight.stage}.views switches nothing on: both views of a sample would be "
                "the same"
            )
        return preflight.network


def _without_labels(data: Dataset) -> Dataset:
    """All training samples, none of which has a label or is augmented."""
    assert data.unlabeled is not None  # see `plan`
    labeled = replace(data.train, y=np.full_like(data.train.y, NO_LABEL))
    return replace(data, train=joined(labeled, data.unlabeled), augment=None)
