"""Training with penalties, dropout, other losses, mixed samples, averages and flat minima."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import keras
from pydantic import Field

from netopt_cli.contracts import Context, Modifier, Network, Preflight
from netopt_cli.dataset import Dataset
from netopt_cli.errors import InputError
from netopt_cli.graph.averaging import moving_average, stochastic_average
from netopt_cli.graph.batch_mixing import mixing
from netopt_cli.graph.batch_norm import recalibrate
from netopt_cli.graph.dropout import with_drop_block, with_dropout, with_spatial_dropout
from netopt_cli.graph.label_losses import confidence_penalty, focal_loss, label_smoothing
from netopt_cli.graph.penalties import elastic, group_lasso, orthogonal, zero_units
from netopt_cli.starting import Start, refuse_late_scratch, started
from netopt_cli.suitability import needs_classes, needs_values

NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]

_STATISTICS_SAMPLES, _BATCH = 2048, 64


@dataclass(frozen=True)
class Regularize:
    """Trains with the chosen regularizers together; 0 or None leaves one out.

    Attributes:
        l1: Factor of the sum of absolute kernel weights, added to the loss.
        l2: Factor of the sum of squared kernel weights, added to the loss; with `l1`, elastic net.
        group_lasso: Factor of the norms of whole units, which makes units exactly zero for
            `opt=structured` to remove: see `graph.penalties`. With Adam 0.1 to 0.5: the mean size
            of weights falls by it times the sum of all learning rates where the loss does not hold
            against it, and weak over many epochs costs less accuracy than strong over few.
        orthogonal: Factor of the kernels' distance from orthogonal ones, added to the loss.
        weight_decay: Decoupled decay (Loshchilov and Hutter, 2019); None is that of `train`.
        dropout: Rate of every dropout layer; a network without one gets one before its head.
        spatial_dropout: Rate of dropping whole channels before convolutions.
        drop_block: Rate of dropping squares before convolutions.
        drop_block_size: Side of these squares.
        label_smoothing: Share of the label spread over all classes (Szegedy et al., 2016).
        confidence_penalty: Factor of the entropy of predictions, taken off the loss.
        focal_gamma: Exponent of the focal loss, which takes the place of cross-entropy.
        mixup: Parameter of the Beta distribution that pairs of samples are mixed with
            (Zhang et al., 2018).
        cutmix: The same for rectangles of one sample in the other (Yun et al., 2019).
        averaging: `ema` keeps the moving average of the weights, `swa` their mean over the last
            part, with the statistics of BatchNorm estimated anew; SWA wants `train.schedule=
            constant`, or a `learning_rate` that stays high.
        ema_decay: What a step leaves of the average, once there are steps enough.
        swa_start: Fraction of the training from which `swa` takes the mean.
        sam_radius: Length of the step uphill from where gradients are taken, for flat minima
            (SAM: Foret et al., 2021); it doubles the cost of a step.
        start: `scratch` from new weights, `current` from those there are; `auto` is `scratch` for
            the first stage.
        epochs: Epochs of the stage; None is `train.epochs`.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    l1: NotNegative = 0.0
    l2: NotNegative = 0.0
    group_lasso: NotNegative = 0.0
    orthogonal: NotNegative = 0.0
    weight_decay: NotNegative | None = None
    dropout: Fraction | None = None
    spatial_dropout: Fraction = 0.0
    drop_block: Fraction = 0.0
    drop_block_size: Annotated[int, Field(ge=1)] = 3
    label_smoothing: Fraction = 0.0
    confidence_penalty: NotNegative = 0.0
    focal_gamma: NotNegative = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    averaging: Literal["none", "ema", "swa"] = "none"
    ema_decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    swa_start: Fraction = 0.75
    sam_radius: NotNegative = 0.0
    start: Start = "auto"
    epochs: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        network, restart = started(network, context, self.start)
        model, changes = self._with_dropouts(network.model)
        for change in changes:
            context.note(change)
        network = context.fit(
            replace(network, model=model),
            epochs=self.epochs or context.epochs,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            modifiers=self._modifiers(model),
            restart=restart,
        )
        if self.averaging == "swa":
            batches = context.data.training_batches(_STATISTICS_SAMPLES, _BATCH, context.seed)
            if recalibrate(network.model, batches):
                context.note("BatchNorm re-calibrated for the averaged weights")
        if self.group_lasso:
            zeros = zero_units(network.model).items()
            left = ", ".join(f"{name} {zero} of {size}" for name, (zero, size) in zeros)
            context.note(f"units that are zero: {left}; opt=structured removes them for nothing")
        return network

    def unsuited(self, data: Dataset) -> str | None:
        mixes = self.mixup or self.cutmix
        of_labels = self.label_smoothing or self.confidence_penalty or self.focal_gamma
        of_classes = needs_classes(data) if mixes or of_labels else None
        return of_classes or (needs_values(data) if mixes else None)

    def plan(self, preflight: Preflight) -> Network:
        key = f"opt.{preflight.stage}"
        refuse_late_scratch(preflight, self.start)
        model, _ = self._with_dropouts(preflight.network.model)
        shape = model.inputs[0].shape
        if self.cutmix and len(shape) != 4:
            raise InputError(
                f"{key}.cutmix needs images (height, width, channels). Received: samples of shape "
                f"{shape[1:]}; {key}.mixup takes any"
            )
        if self.group_lasso and not zero_units(model):
            raise InputError(f"{key}.group_lasso: no unit of '{model.name}' could be removed")
        return replace(preflight.network, model=model)

    def _with_dropouts(self, model: keras.Model) -> tuple[keras.Model, list[str]]:
        """The model with the dropout layers that it shall have, and what was changed."""
        rewrites = []
        if self.dropout is not None:
            rewrites.append(partial(with_dropout, rate=self.dropout))
        if self.spatial_dropout:
            rewrites.append(partial(with_spatial_dropout, rate=self.spatial_dropout))
        if self.drop_block:
            size = self.drop_block_size
            rewrites.append(partial(with_drop_block, rate=self.drop_block, block_size=size))
        changes: list[str] = []
        for rewrite in rewrites:
            model, lines = rewrite(model)
            changes += lines
        return model, changes

    def _modifiers(self, model: keras.Model) -> list[Modifier]:
        modifiers = []
        if self.l1 or self.l2:
            modifiers.append(elastic(model, self.l1, self.l2))
        if self.group_lasso:
            modifiers.append(group_lasso(model, self.group_lasso))
        if self.orthogonal:
            modifiers.append(orthogonal(model, self.orthogonal))
        if self.label_smoothing:
            modifiers.append(label_smoothing(self.label_smoothing))
        if self.confidence_penalty:
            modifiers.append(confidence_penalty(self.confidence_penalty))
        if self.focal_gamma:
            modifiers.append(focal_loss(self.focal_gamma))
        if self.mixup or self.cutmix:
            modifiers.append(mixing(self.mixup, self.cutmix))
        if self.averaging == "ema":
            modifiers.append(moving_average(model, self.ema_decay))
        if self.averaging == "swa":
            modifiers.append(stochastic_average(model, self.swa_start))
        if self.sam_radius:
            modifiers.append(Modifier("SAM", sharpness_radius=self.sam_radius))
        return modifiers
