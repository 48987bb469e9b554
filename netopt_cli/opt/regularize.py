"""Training with penalties, dropout, softened labels and mixed samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import keras
import tensorflow as tf
from pydantic import Field

from netopt_cli.contracts import Context, Forward, Modifier, Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.dropout import with_dropout
from netopt_cli.graph.kernels import kernels

NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Regularize:
    """Trains with the chosen regularizers together; 0 or None leaves one out.

    Attributes:
        l1: Factor of the sum of absolute kernel weights, added to the loss.
        l2: Factor of the sum of squared kernel weights, added to the loss.
        weight_decay: Decoupled decay (Loshchilov and Hutter, 2019); None is that of `train`.
        dropout: Rate of every dropout layer; a network without one gets one before its head.
        label_smoothing: Share of the label spread over all classes (Szegedy et al., 2016).
        mixup: Parameter of the Beta distribution that pairs of samples are mixed with
            (Zhang et al., 2018).
        start: `scratch` from new weights, `current` from those there are; `auto` is `scratch` for
            the first stage.
        epochs: Epochs of the stage; None is `train.epochs`.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    l1: NotNegative = 0.0
    l2: NotNegative = 0.0
    weight_decay: NotNegative | None = None
    dropout: Fraction | None = None
    label_smoothing: Fraction = 0.0
    mixup: NotNegative = 0.0
    start: Literal["auto", "scratch", "current"] = "auto"
    epochs: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        restart = self.start == "scratch" or (self.start == "auto" and context.is_first)
        if restart:
            network = replace(network, model=context.fresh().model)
        if self.dropout is not None:
            model, changes = with_dropout(network.model, self.dropout)
            network = replace(network, model=model)
            for change in changes:
                context.note(change)
        return context.fit(
            network,
            epochs=self.epochs or context.epochs,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            modifiers=self._modifiers(network.model),
            restart=restart,
        )

    def plan(self, preflight: Preflight) -> Network:
        if self.start == "scratch" and not preflight.is_first:
            raise InputError(
                "opt.regularize.start=scratch would throw away what the stages before it made: "
                "put it first, or use opt.regularize.start=current"
            )
        return preflight.network

    def _modifiers(self, model: keras.Model) -> list[Modifier]:
        modifiers = []
        if self.l1 or self.l2:
            modifiers.append(_penalty(model, self.l1, self.l2))
        if self.label_smoothing:
            modifiers.append(_label_smoothing(self.label_smoothing))
        if self.mixup:
            modifiers.append(_mixup(self.mixup))
        return modifiers


def _penalty(model: keras.Model, l1: float, l2: float) -> Modifier:
    weights = list(kernels(model).values())

    def extra_loss(step: Forward) -> tf.Tensor:
        total = tf.constant(0.0)
        for variable in weights:
            weight = tf.convert_to_tensor(variable.value)
            if l1:
                total += l1 * tf.reduce_sum(tf.abs(weight))
            if l2:
                total += l2 * tf.reduce_sum(tf.square(weight))
        return total

    return Modifier("penalty", extra_loss=extra_loss)


def _label_smoothing(share: float) -> Modifier:
    def transform(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return x, y * (1.0 - share) + share / y.shape[-1]

    return Modifier("label smoothing", transform_batch=transform)


def _mixup(alpha: float) -> Modifier:
    def transform(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Beta(a, a) as a ratio of two gamma draws; batches are shuffled, so that a sample's
        # partner can be its mirror image in the batch.
        first, second = tf.unstack(tf.random.stateless_gamma((2,), seed, alpha))
        share = first / tf.maximum(first + second, 1e-12)
        return (
            share * x + (1.0 - share) * tf.reverse(x, [0]),
            share * y + (1.0 - share) * tf.reverse(y, [0]),
        )

    return Modifier("mixup", transform_batch=transform)
