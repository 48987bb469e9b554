"""Knowledge amalgamation: several teachers, each an expert of some classes, become one student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf
from pydantic import Field

from netopt_cli.contracts import ArchBuilder, Context, Forward, Modifier, Network, Preflight
from netopt_cli.dataset import Dataset
from netopt_cli.errors import InputError, did_you_mean
from netopt_cli.graph.distillation_losses import soft_target_loss
from netopt_cli.graph.transfer_set import task_of
from netopt_cli.starting import Start, refuse_late_scratch, started
from netopt_cli.suitability import needs_classes

Classes = tuple[Annotated[int, Field(ge=0)], ...]


@dataclass(frozen=True)
class Amalgamate:
    """Trains the network on what experts say, each of the classes of its own task.

    The student's logits are cut into heads, one for each task: the classes that its teacher knows.
    A head learns the softened predictions of its teacher on the samples of its task; the labels,
    with their share of the loss, hold the heads together, since no teacher can compare a class of
    its own with another's (after Shen et al., "Amalgamating Knowledge towards Comprehensive
    Classification", AAAI 2019). Tasks may overlap; a class of no task has its labels alone.

    loss = w * task + (1 - w) * sum over the tasks of T² KL(teacher || head)

    Attributes:
        teacher: The arch of the experts, with as many logits as its task has classes. Each is
            trained on the samples of its task, in the run.
        teachers: Task -> another arch for its expert, as of a file, which has as many logits as the
            task has classes, in its order.
        tasks: Name -> classes, counted from 0; None is two halves, `low` and `high`.
        teacher_epochs: Epochs of the experts' training; None is `train.epochs`, 0 takes them as
            they are.
        temperature: T, of the softened predictions.
        student_loss_weight: w, the share of the loss on the labels.
        start: `scratch` from new weights, `current` from those there are; `auto` is `scratch` for
            the first stage.
        epochs: Epochs of the stage; None is `train.epochs`.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    teacher: ArchBuilder
    teachers: Mapping[str, ArchBuilder] = field(default_factory=dict)
    tasks: Mapping[str, Classes] | None = None
    teacher_epochs: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(gt=0)] = 4.0
    student_loss_weight: Annotated[float, Field(gt=0, le=1)] = 0.3
    start: Start = "auto"
    epochs: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        epochs = context.epochs if self.teacher_epochs is None else self.teacher_epochs
        heads = []
        for name, classes in self._tasks(context.data.classes).items():
            context.note(f"task {name}: classes {', '.join(map(str, classes))}")
            expert = context.teacher(
                self._expert(name),
                epochs=epochs,
                data=task_of(context.data, classes),
            )
            heads.append((expert, classes))
        network, restart = started(network, context, self.start)
        return context.fit(
            network,
            epochs=self.epochs or context.epochs,
            learning_rate=self.learning_rate,
            modifiers=[self._match(heads)],
            restart=restart,
        )

    def unsuited(self, data: Dataset) -> str | None:
        return needs_classes(data)

    def plan(self, preflight: Preflight) -> Network:
        where = f"opt.{preflight.stage}"
        refuse_late_scratch(preflight, self.start)
        student = preflight.network.model
        classes = student.outputs[-1].shape[-1]
        tasks = self._tasks(classes)
        for name in self.teachers:
            if name not in tasks:
                raise InputError(
                    f"{where}.teachers must be named as the tasks. Received: '{name}'."
                    f"{did_you_mean(name, tasks)}"
                )
        for name, task in tasks.items():
            if len(set(task)) < max(2, len(task)) or max(task) >= classes:
                raise InputError(
                    f"{where}.tasks.{name} must be two classes or more, each once, in 0 … "
                    f"{classes - 1}. Received: {list(task)}"
                )
            expert = preflight.build(self._expert(name), len(task)).model
            if expert.outputs[-1].shape[-1] != len(task):
                raise InputError(
                    f"{where}: the teacher of task {name} must have a logit for each of its "
                    f"{len(task)} classes. Received: '{expert.name}' with "
                    f"{expert.outputs[-1].shape[-1]}"
                )
        return preflight.network

    def _tasks(self, classes: int) -> Mapping[str, Classes]:
        if self.tasks is not None:
            return self.tasks
        half = classes // 2
        return {"low": tuple(range(half)), "high": tuple(range(half, classes))}

    def _expert(self, task: str) -> ArchBuilder:
        return self.teachers.get(task, self.teacher)

    def _match(self, heads: Sequence[tuple[keras.Model, Classes]]) -> Modifier:
        def extra_loss(step: Forward) -> tf.Tensor:
            loss = tf.constant(0.0)
            for expert, classes in heads:
                said = tf.stop_gradient(tf.cast(expert(step.x, training=False), tf.float32))
                target = tf.nn.softmax(said / self.temperature)
                head = tf.gather(step.logits, np.array(classes), axis=-1)
                of_task = tf.reduce_sum(tf.gather(step.y, np.array(classes), axis=-1), axis=-1)
                loss += soft_target_loss(head, target, self.temperature, of_task)
            return (1.0 - self.student_loss_weight) * loss

        return Modifier("amalgamate", extra_loss=extra_loss,
                        task_loss_weight=self.student_loss_weight)  # fmt: skip
