"""Early exits: easy samples leave the network before its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import keras
import tensorflow as tf
from pydantic import Field

from netopt_cli.contracts import Context, ExitPolicy, Forward, Modifier, Network, Preflight
from netopt_cli.dataset import Dataset
from netopt_cli.errors import InputError, did_you_mean
from netopt_cli.graph.exits import (
    BuildHead,
    attach_exits,
    ends_of_blocks,
    exit_places,
    trunk_layers,
)
from netopt_cli.suitability import needs_classes
from netopt_cli.task.classification import labeled_mean

Count = Annotated[int, Field(ge=1)]

_POOLING = {
    1: keras.layers.MaxPooling1D, 2: keras.layers.MaxPooling2D, 3: keras.layers.MaxPooling3D,
}  # fmt: skip
_CONVOLUTION = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}


@dataclass(frozen=True)
class EarlyExit:
    """Gives the network exits and trains them (BranchyNet: Teerapittayanon et al., 2016).

    An exit is a small head on what a layer computes: max pooling to at most `head_side` positions a
    side, a 3x3 convolution, a hidden dense layer, the logits. A sample leaves at the first exit
    that is sure enough of it. Thresholds are chosen on the validation split whenever the network is
    exported, one for each exit of that file, so that later stages may change the network.

    The network is exported in segments, each its own LiteRT file, and the time of a sample is that
    of the segments it goes through.

    Attributes:
        at: Layers that an exit follows; everything after such a layer must depend on it alone. None
            chooses the ends of blocks: a block is a layer with a kernel and what belongs to it, or
            a residual block.
        every: With `at` None: an exit after each so many blocks; None is one after the first
            block and one in the middle.
        head_side: Side of the feature map (or length of the sequence) that a head looks at.
        head_filters: Of the head's convolution, on a feature map or sequence; 0 leaves it out.
        head_units: Of the head's hidden dense layer; 0 leaves it out.
        training: `joint` trains network and exits by the sum of their losses; `separate` leaves the
            network as it is and trains the heads alone.
        loss_weights: Of the exits' losses, from the input on; one for all, or one each. The final
            logits' loss has weight 1.
        self_distillation: Share of each exit's loss that is the divergence from the final logits
            in place of the labels' (Zhang et al., Be Your Own Teacher, 2019).
        temperature: Of that divergence.
        policy: What decides: `entropy`, `confidence` or `patience` (Zhou et al., 2020), see
            `contracts.ExitPolicy`.
        max_drop: Points of validation accuracy that leaving early may cost.
        margin: Standard errors of that cost, as the validation split tells it, that must fit below
            `max_drop` besides: thresholds that look best on few samples keep less elsewhere.
        target_cost: In place of `max_drop`: mean multiply-accumulates, as a fraction of all.
        epochs: Epochs of the stage.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    at: tuple[str, ...] | None = None
    every: Count | None = None
    head_side: Count = 4
    head_filters: Annotated[int, Field(ge=0)] = 0
    head_units: Annotated[int, Field(ge=0)] = 0
    training: Literal["joint", "separate"] = "joint"
    loss_weights: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)
    self_distillation: Annotated[float, Field(ge=0, le=1)] = 0.0
    temperature: Annotated[float, Field(gt=0)] = 3.0
    policy: Literal["entropy", "confidence", "patience"] = "entropy"
    max_drop: Annotated[float, Field(ge=0)] | None = 0.5
    margin: Annotated[float, Field(ge=0)] = 1.0
    target_cost: Annotated[float, Field(gt=0, le=1)] | None = None
    epochs: Count = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        places = self._places(network.model)
        network = self._with_exits(network, places)
        context.note(f"exits after {', '.join(places)}")
        # The best epoch of the final logits need not be that of the exits: the last one counts.
        to_the_end = Modifier("to the last epoch", settles_at=1.0)
        with _frozen(trunk_layers(network.model) if self.training == "separate" else []):
            return context.fit(
                network,
                epochs=self.epochs,
                learning_rate=self.learning_rate,
                modifiers=[to_the_end],
            )

    def unsuited(self, data: Dataset) -> str | None:
        return needs_classes(data)

    def plan(self, preflight: Preflight) -> Network:
        preflight.refuse_after(
            "fake quantization", "the exits would not be rounded: put it before, and use quantize"
        )
        if preflight.network.exits is not None:
            raise InputError(f"opt: '{preflight.stage}' finds exits in the network: keep one stage")
        if (self.max_drop is None) == (self.target_cost is None):
            raise InputError(
                "opt.early_exit: thresholds are chosen for max_drop or for target_cost; set the "
                f"other one to null. Received: max_drop={self.max_drop}, "
                f"target_cost={self.target_cost}"
            )
        places = self._places(preflight.network.model)
        if len(self.loss_weights) not in (1, len(places)):
            raise InputError(
                f"opt.early_exit.loss_weights: one for all, or one for each of {len(places)} exits "
                f"({', '.join(places)}). Received: {list(self.loss_weights)}"
            )
        return self._with_exits(preflight.network, places)

    def _with_exits(self, network: Network, places: list[str]) -> Network:
        losses = partial(_exit_losses, self.loss_weights, self.self_distillation, self.temperature)
        return replace(
            network,
            model=attach_exits(network.model, places, self._head(network.model.output_shape[-1])),
            keeps=(*network.keeps, losses),
            exits=ExitPolicy(self.policy, self.max_drop, self.margin, self.target_cost),
        )

    def _places(self, model: keras.Model) -> list[str]:
        """The layers that exits follow, from the input on."""
        possible = list(exit_places(model))
        for name in self.at or ():
            if name not in possible:
                exists = any(layer.name == name for layer in model.layers)
                raise InputError(
                    "opt.early_exit.at: "
                    + (
                        f"not everything after '{name}' depends on it alone."
                        if exists
                        else f"'{name}' is no layer of the network.{did_you_mean(name, possible)}"
                    )
                    + f" Exits can follow: {', '.join(possible)}"
                )
        if self.at:
            return [name for name in possible if name in self.at]
        ends = ends_of_blocks(model)
        if self.every is not None:
            chosen = ends[self.every - 1 :: self.every]
        else:
            chosen = list(dict.fromkeys([*ends[:1], *ends[len(ends) // 2 :][:1]]))
        if not chosen:
            advice = f"Use opt.early_exit.every of at most {len(ends)}" if ends else "Use at"
            raise InputError(
                f"opt.early_exit: '{model.name}' has {len(ends)} ends of blocks before its last "
                f"({', '.join(ends) or 'none'}). {advice}. Exits can follow: {', '.join(possible)}"
            )
        return chosen

    def _head(self, classes: int) -> BuildHead:
        def build(x: keras.KerasTensor, number: int) -> keras.KerasTensor:
            name = f"exit_{number}"
            sides = x.shape[1:-1]
            if any(side > self.head_side for side in sides):
                window = tuple(-(-side // self.head_side) for side in sides)
                x = _POOLING[len(sides)](window, padding="same", name=f"{name}_pool")(x)
            if self.head_filters and sides:
                x = _CONVOLUTION[len(sides)](
                    self.head_filters, 3, padding="same", activation="relu", name=f"{name}_conv"
                )(x)
            if sides:
                x = keras.layers.Flatten(name=f"{name}_flatten")(x)
            if self.head_units:
                x = keras.layers.Dense(self.head_units, activation="relu", name=f"{name}_dense")(x)
            return keras.layers.Dense(classes, name=f"{name}_logits")(x)

        return build


def _exit_losses(
    weights: tuple[float, ...], share: float, temperature: float, model: keras.Model
) -> Modifier:
    """The exits' part of the loss, for this training and all later ones."""
    exits = tuple(model.outputs[:-1])
    weights = weights * len(exits) if len(weights) == 1 else weights

    def extra_loss(step: Forward) -> tf.Tensor:
        teacher = tf.stop_gradient(step.logits) / temperature
        target = tf.nn.softmax(teacher)
        entropy = tf.nn.softmax_cross_entropy_with_logits(target, teacher)
        total = tf.constant(0.0)
        for weight, logits in zip(weights, step.taps, strict=True):
            task = tf.nn.softmax_cross_entropy_with_logits(step.y, logits)
            loss = (1.0 - share) * labeled_mean(task, step.y)
            if share:
                cross = tf.nn.softmax_cross_entropy_with_logits(target, logits / temperature)
                loss += share * temperature**2 * tf.reduce_mean(cross - entropy)
            total += weight * loss
        return total

    return Modifier("early exits", extra_loss=extra_loss, taps=exits)


@contextmanager
def _frozen(layers: list[keras.Layer]) -> Iterator[None]:
    """The layers without training: weights and moving statistics stay."""
    trainable = [layer.trainable for layer in layers]
    for layer in layers:
        layer.trainable = False
    try:
        yield
    finally:
        for layer, value in zip(layers, trainable, strict=True):
            layer.trainable = value
