"""Knowledge distillation from a teacher's logits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import keras
import tensorflow as tf
from pydantic import Field

from netopt_cli.contracts import ArchBuilder, Context, Forward, Modifier, Network, Preflight
from netopt_cli.errors import InputError


@dataclass(frozen=True)
class Distill:
    """Trains the network to match a teacher's softened predictions (Hinton et al., 2015).

    loss = w * task + (1 - w) * T^2 * KL(softmax(teacher / T) || softmax(student / T))

    `keras.distillation` is not used: its Distiller is a model with its own `train_step`, which
    would neither combine with other techniques nor run on several workers.

    Attributes:
        teacher: The arch of the teacher. It is trained in the run, or loaded from a file.
        teacher_epochs: Epochs of the teacher's training; None is `train.epochs`, 0 takes the
            teacher as it is.
        temperature: T.
        student_loss_weight: w, the share of the loss on the labels.
        start: `scratch` from new weights, `current` from those there are; `auto` is `scratch` for
            the first stage.
        epochs: Epochs of the stage; None is `train.epochs`.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    teacher: ArchBuilder
    teacher_epochs: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(gt=0)] = 4.0
    student_loss_weight: Annotated[float, Field(ge=0, le=1)] = 0.1
    start: Literal["auto", "scratch", "current"] = "auto"
    epochs: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        teacher_epochs = context.epochs if self.teacher_epochs is None else self.teacher_epochs
        teacher = context.teacher(self.teacher, epochs=teacher_epochs)
        restart = self.start == "scratch" or (self.start == "auto" and context.is_first)
        if restart:
            network = replace(network, model=context.fresh().model)
        return context.fit(
            network,
            epochs=self.epochs or context.epochs,
            learning_rate=self.learning_rate,
            modifiers=[_match(teacher, self.temperature, self.student_loss_weight)],
            restart=restart,
        )

    def plan(self, preflight: Preflight) -> Network:
        if self.start == "scratch" and not preflight.is_first:
            raise InputError(
                "opt.distill.start=scratch would throw away what the stages before it made: "
                "put it first, or use opt.distill.start=current"
            )
        preflight.build(self.teacher)
        return preflight.network


def _match(teacher: keras.Model, temperature: float, student_loss_weight: float) -> Modifier:
    def extra_loss(step: Forward) -> tf.Tensor:
        teacher_logits = tf.stop_gradient(tf.cast(teacher(step.x, training=False), tf.float32))
        target = tf.nn.softmax(teacher_logits / temperature)
        cross_entropy = tf.nn.softmax_cross_entropy_with_logits(target, step.logits / temperature)
        entropy = tf.nn.softmax_cross_entropy_with_logits(target, teacher_logits / temperature)
        divergence = tf.reduce_mean(cross_entropy - entropy)
        return (1.0 - student_loss_weight) * temperature**2 * divergence

    return Modifier("distill", extra_loss=extra_loss, task_loss_weight=student_loss_weight)
