"""Lightweight convolutions in the place of standard ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import keras
from pydantic import Field

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.graph.lightweight import (
    Between,
    Convolution,
    Lightening,
    Replacement,
    choose_replacements,
    lighten,
)
from netopt_cli.graph.teaching import Lesson


@dataclass(frozen=True)
class Lighten:
    """Replaces convolutions by depthwise-separable or grouped ones, then fine-tunes.

    The new kernels start from the old ones, so that training does not begin anew. A convolution is
    replaced only where its MACs fall; the last part of the new one keeps its name.

    Attributes:
        convolution: `separable` (depthwise, then 1×1) or `grouped`.
        multiplier: Of `separable`: depthwise filters for each input channel.
        between: Of `separable`: what goes between its parts: `none`, which starts nearest to the
            original, `batch_norm` or `batch_norm_relu`, as in MobileNet.
        groups: Of `grouped`: at most so many, as many as divide the channels.
        shuffle: Of `grouped`: mixes the channels before each one (ShuffleNet).
        keep_first: Leaves the first convolution alone, which reads the raw channels.
        exclude: Patterns of layer names to leave alone.
        distill: Trains with the network before the rewrite as the teacher (Hinton et al., 2015).
        temperature: Of the distillation.
        student_loss_weight: Of the distillation: the share of the loss on the labels.
        epochs: Epochs of the fine-tuning.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    convolution: Convolution = "separable"
    multiplier: Annotated[int, Field(ge=1)] = 1
    between: Between = "none"
    groups: Annotated[int, Field(ge=2)] = 4
    shuffle: bool = False
    keep_first: bool = True
    exclude: tuple[str, ...] = ()
    distill: bool = False
    temperature: Annotated[float, Field(gt=0)] = 4.0
    student_loss_weight: Annotated[float, Field(ge=0, le=1)] = 0.1
    epochs: Annotated[int, Field(ge=1)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        chosen, left = self._choose(network.model)
        for line in [*map(str, chosen), *left]:
            context.note(line)
        teacher = network.model
        lesson = Lesson(temperature=self.temperature, student_loss_weight=self.student_loss_weight)
        return context.fit(
            replace(network, model=lighten(teacher, chosen, self._lightening)),
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            modifiers=[lesson.modifier([teacher])] if self.distill else [],
        )

    def plan(self, preflight: Preflight) -> Network:
        order = f"put '{preflight.stage}' before it"
        preflight.refuse_after("zeros", f"the new kernels would have none of its zeros; {order}")
        preflight.refuse_after("codebook", f"the new kernels would not be on its codebook; {order}")
        preflight.refuse_after("fake quantization", f"the new kernels would lose it; {order}")
        model = preflight.network.model
        chosen, _ = self._choose(model)
        return replace(preflight.network, model=lighten(model, chosen, self._lightening))

    @property
    def _lightening(self) -> Lightening:
        return Lightening(
            self.convolution, self.multiplier, self.between, self.groups, self.shuffle
        )

    def _choose(self, model: keras.Model) -> tuple[Sequence[Replacement], list[str]]:
        return choose_replacements(
            model, self._lightening, keep_first=self.keep_first, exclude=self.exclude
        )
