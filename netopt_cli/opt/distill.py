"""Knowledge distillation: a student learns from one teacher or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Literal

import keras
import numpy as np
from pydantic import Field

from netopt_cli.contracts import ArchBuilder, Context, Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.batch_mixing import mixing
from netopt_cli.graph.logit_bias import best_offsets, output_bias, recall
from netopt_cli.graph.teaching import Combine, Lesson, Method
from netopt_cli.graph.transfer_set import transfer_set
from netopt_cli.starting import Start, refuse_late_scratch, started
from netopt_cli.suitability import needs_a_teachable_task, needs_classes, needs_values

if TYPE_CHECKING:
    from netopt_cli.dataset import Dataset

_BATCH = 500

NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Distill:
    """Trains the network on what teachers say of the samples, and on the labels (Hinton et al.,
    2015).

    loss = w * task + (1 - w) * logits_weight * logits loss + feature_weight * feature loss

    The losses, with their papers, are in `graph.distillation_losses`. The control is the student
    without a teacher, trained as long on the same samples with their labels.

    `keras.distillation` is not used: its Distiller is a model with its own `train_step`, which
    would neither combine with other techniques nor run on several workers.

    Attributes:
        teacher: The arch of the teacher. It is trained in the run, or loaded from a file or the
            directory of a run. It sees all the data.
        teachers: Further teachers, by any names; they speak of logits alone.
        teacher_epochs: Epochs of the teachers' training; None is `train.epochs`, 0 takes them as
            they are.
        combine: How several teachers become one: see `graph.teaching.Lesson`.
        teacher_weights: Of `combine=weighted`, for `teacher` and then `teachers` in order.
        method: What is matched: see `graph.teaching.Lesson`.
        layers: Of the methods on features: student's layer -> teacher's layer, or `auto`.
        temperature: T, of the softened predictions.
        student_loss_weight: w, the share of the loss on the labels.
        logits_weight: Of the loss on the logits.
        feature_weight: Of the loss on the features; None is `graph.teaching.FEATURE_WEIGHTS`.
        others_weight: Of `dkd`: what the classes that are not the true one count.
        mixup: Parameter of the Beta distribution that pairs of samples are mixed with, which the
            teachers then speak of: few samples become many (Beyer et al., 2022); 0 is off. The
            control trains on the samples as they are.
        samples_per_class: The student learns from so many samples of each class; None is all.
        missing_classes: Classes of which the student sees no sample.
        augment: Whether the student's samples are augmented as the teacher's are (`data.augment`);
            those of the control are treated alike.
        unlabeled: The student's samples have no labels: `student_loss_weight` counts as 0.
        calibrate_bias: Sets the bias of the missing classes on the validation split, after the
            training, so that most of its samples are classified right.
        keep_teacher: Later stages go on learning from the teachers, on all the data.
        start: `scratch` from new weights, `current` from those there are; `auto` is `scratch` for
            the first stage, where it trains.
        epochs: Epochs of the stage; None is `train.epochs`. 0 with `keep_teacher` trains nothing:
            the next stage learns from the teachers while it does its own work.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    teacher: ArchBuilder
    teachers: Mapping[str, ArchBuilder] = field(default_factory=dict)
    teacher_epochs: Annotated[int, Field(ge=0)] | None = None
    combine: Combine = "average"
    teacher_weights: tuple[Positive, ...] = ()
    method: Method = "logits"
    layers: Mapping[str, str] | Literal["auto"] = "auto"
    temperature: Positive = 4.0
    student_loss_weight: Annotated[float, Field(ge=0, le=1)] = 0.1
    logits_weight: NotNegative = 1.0
    feature_weight: Positive | None = None
    others_weight: NotNegative = 8.0
    mixup: NotNegative = 0.0
    samples_per_class: Annotated[int, Field(ge=1)] | None = None
    missing_classes: tuple[Annotated[int, Field(ge=0)], ...] = ()
    augment: bool = True
    unlabeled: bool = False
    calibrate_bias: bool = False
    keep_teacher: bool = False
    start: Start = "auto"
    epochs: Annotated[int, Field(ge=0)] | None = None
    learning_rate: Positive | None = None

    def __post_init__(self) -> None:
        if self.combine == "weighted" and len(self.teacher_weights) != 1 + len(self.teachers):
            raise ValueError(
                "combine=weighted needs one of teacher_weights for each teacher, "
                f"{1 + len(self.teachers)}. Received: teacher_weights={list(self.teacher_weights)}"
            )
        if self.teacher_weights and self.combine != "weighted":
            raise ValueError(
                f"teacher_weights go with combine=weighted. Received: combine={self.combine}"
            )
        if self.unlabeled and self.method == "dkd":
            raise ValueError("method=dkd needs labels; without them use method=logits")
        if self.method in ("logits", "dkd") and self.logits_weight == 0:
            raise ValueError(
                "logits_weight=0 leaves the teacher out, unless the method is one on features. "
                f"Received: method={self.method}"
            )
        if self.calibrate_bias and not self.missing_classes:
            raise ValueError("calibrate_bias sets the bias of missing_classes, and there are none")
        if self.epochs == 0 and not self.keep_teacher:
            raise ValueError(
                "epochs=0 trains nothing: with keep_teacher=true the stages after it learn from "
                "the teacher; else give it epochs"
            )
        if self.epochs == 0 and self.start == "scratch":
            raise ValueError("start=scratch needs epochs to train the new weights. Received: 0")

    def __call__(self, network: Network, context: Context) -> Network:
        before = context.evaluate(network.model)
        teachers = self._taught(context, before)
        if self.epochs != 0:
            network = self._trained(network, teachers, context)
        if self.calibrate_bias:
            self._set_bias(network.model, context)
        if self.keep_teacher:
            task = context.data.task
            keep = self._lesson.keep(teachers, where="opt.distill.layers", task=task)
            network = replace(network, keeps=(*network.keeps, keep))
        return network

    def unsuited(self, data: Dataset) -> str | None:
        about_classes = (
            self.method == "dkd"
            or self.combine == "per_sample"
            or self.samples_per_class
            or self.missing_classes
            or self.mixup
        )
        of_classes = needs_classes(data) if about_classes else None
        of_values = needs_values(data) if self.mixup else None
        return of_classes or of_values or needs_a_teachable_task(data)

    def plan(self, preflight: Preflight) -> Network:
        refuse_late_scratch(preflight, self.start)
        student = preflight.network.model
        teachers = {"teacher": self.teacher}
        teachers |= {f"teachers.{name}": arch for name, arch in self.teachers.items()}
        built = [
            _checked(preflight.build(arch).model, student, where=f"opt.{preflight.stage}.{key}")
            for key, arch in teachers.items()
        ]
        self._lesson.pairs(student, built[0], where=f"opt.{preflight.stage}.layers")
        classes = student.outputs[-1].shape[-1]
        for label in self.missing_classes:
            if label >= classes:
                raise InputError(
                    f"opt.{preflight.stage}.missing_classes must be in 0 … {classes - 1}. "
                    f"Received: {label}"
                )
        if len(set(self.missing_classes)) >= classes:
            raise InputError(f"opt.{preflight.stage}.missing_classes leaves no class to learn from")
        if self.calibrate_bias:
            output_bias(student)
        return preflight.network

    @property
    def _lesson(self) -> Lesson:
        return Lesson(
            method=self.method,
            temperature=self.temperature,
            student_loss_weight=0.0 if self.unlabeled else self.student_loss_weight,
            logits_weight=self.logits_weight,
            feature_weight=self.feature_weight,
            others_weight=self.others_weight,
            layers=self.layers,
            combine=self.combine,
            teacher_weights=self.teacher_weights,
        )

    def _taught(self, context: Context, student_score: float) -> list[keras.Model]:
        """The teachers; says which of them has less to teach than the student knows."""
        epochs = context.epochs if self.teacher_epochs is None else self.teacher_epochs
        teachers = []
        for arch in (self.teacher, *self.teachers.values()):
            teacher = context.teacher(arch, epochs=epochs)
            found = context.evaluate(teacher)
            if found < student_score:
                context.note(
                    f"warning: teacher {teacher.name} is worse on validation than the network "
                    f"that it is to teach, {found:.4g} against {student_score:.4g}: train it "
                    "longer (teacher_epochs), or take a larger one"
                )
            teachers.append(teacher)
        return teachers

    def _trained(
        self, network: Network, teachers: Sequence[keras.Model], context: Context
    ) -> Network:
        network, restart = started(network, context, self.start)
        pairs = self._lesson.pairs(network.model, teachers[0], where="opt.distill.layers")
        for pair in pairs:
            context.note(str(pair))
        data = self._transfer_set(context)
        mixed = [mixing(self.mixup, cutmix=0.0)] if self.mixup else []
        return context.fit(
            network,
            epochs=context.epochs if self.epochs is None else self.epochs,
            learning_rate=self.learning_rate,
            modifiers=[*mixed, self._lesson.modifier(teachers, pairs, task=context.data.task)],
            restart=restart,
            data=data,
        )

    def _transfer_set(self, context: Context) -> Dataset | None:
        """What the student learns from, where that is not the run's data."""
        data = context.data
        if self.samples_per_class is not None or self.missing_classes:
            data = transfer_set(
                data,
                samples_per_class=self.samples_per_class,
                missing_classes=self.missing_classes,
                seed=context.seed,
            )
            context.note(f"the student learns from {len(data.train):,} samples")
        if not self.augment and data.augment is not None:
            data = replace(data, augment=None)
        return None if data is context.data else data

    def _set_bias(self, model: keras.Model, context: Context) -> None:
        data = context.data
        batches = data.normalized_batches(data.validation, _BATCH)
        logits = np.concatenate([np.asarray(model(x, training=False)) for x, _ in batches])
        y = data.validation.y
        offsets = best_offsets(logits, y, self.missing_classes)
        bias = output_bias(model)
        bias.assign(bias.numpy() + offsets)
        for label in self.missing_classes:
            context.note(
                f"class {data.class_names[label]}, not in the transfer set: bias raised by "
                f"{offsets[label]:.2f}, recall on validation {recall(logits, y, label):.1%} -> "
                f"{recall(logits + offsets, y, label):.1%}"
            )


def _checked(teacher: keras.Model, student: keras.Model, *, where: str) -> keras.Model:
    """Returns the teacher, or refuses one that cannot speak of the student's samples."""
    seen, needed = teacher.inputs[0].shape[1:], student.inputs[0].shape[1:]
    if len(teacher.inputs) != 1 or seen != needed:
        raise InputError(
            f"{where} must take the inputs of the student, {needed}. Received: '{teacher.name}' "
            f"for {seen}"
        )
    said, wanted = teacher.outputs[-1].shape[1:], student.outputs[-1].shape[1:]
    if said != wanted:
        what = f"{wanted[0]} classes" if len(wanted) == 1 else f"shape, {wanted}"
        raise InputError(
            f"{where} must return the logits of the student's {what}. Received: "
            f"'{teacher.name}' with outputs {said}"
        )
    return teacher
