"""A student in training with teachers beside it: what they say becomes one modifier of its step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import keras
import tensorflow as tf

from netopt_cli.contracts import Forward, Modifier
from netopt_cli.errors import InputError
from netopt_cli.graph import distillation_losses as losses
from netopt_cli.graph.layer_pairs import LayerPair, pair_layers
from netopt_cli.task.classification import CLASSIFICATION
from netopt_cli.tasks import Task

Method = Literal[
    "logits", "dkd", "features", "attention", "relational", "similarity", "contrastive"
]
Combine = Literal["average", "weighted", "per_sample"]

FEATURE_WEIGHTS = {
    "features": 1.0,
    "attention": 5.0,
    "relational": 25.0,
    "similarity": 5.0,
    "contrastive": 0.8,
}
"""What the loss on features is multiplied with, unless said otherwise. Not tuned, and not those of
the papers, which belong to sums where `distillation_losses` has means."""

_EMBEDDING = 128
"""Width that `contrastive` projects both embeddings to, as in the paper."""
_CONTRAST = 0.1
"""Temperature of `contrastive`, for tens of negatives; the paper's 0.07 is for thousands."""
_MAPS = ("attention", "similarity")
"""Methods that look at features as they are, others at their means over the positions."""

_FeatureLoss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Lesson:
    """How a student learns from its teachers.

    loss = w * task + (1 - w) * logits_weight * logits loss + feature_weight * feature loss

    Attributes:
        method: `logits` matches softened predictions, `dkd` in two parts; the others look at
            features, see `distillation_losses`, besides the logits.
        temperature: Of the softened predictions.
        student_loss_weight: w, the share of the loss on the labels; at 0 no label is read.
        logits_weight: Of the loss on the logits.
        feature_weight: Of the loss on the features.
        others_weight: Of the other classes in `dkd`.
        layers: Student's layer -> layer of the first teacher, or `auto`: see `pair_layers`.
        combine: How several teachers become one target: the mean of their softened predictions,
            a mean with `teacher_weights`, or `per_sample`: weights are the softmax, over the
            teachers, of how well each does on the sample (Zhang et al., 2022): minus the
            cross-entropy with the label, or minus its entropy where no label is read.
    """

    method: Method = "logits"
    temperature: float = 4.0
    student_loss_weight: float = 0.1
    logits_weight: float = 1.0
    feature_weight: float | None = None
    others_weight: float = 8.0
    layers: Mapping[str, str] | Literal["auto"] = "auto"
    combine: Combine = "average"
    teacher_weights: tuple[float, ...] = ()

    def pairs(self, student: keras.Model, teacher: keras.Model, *, where: str) -> list[LayerPair]:
        """The layers that the method works on; none for those on logits alone.

        Raises:
            InputError: There are none that suit it. `where` is the key of `layers`.
        """
        if self.method == "logits" or self.method == "dkd":  # noqa: PLR1714 - mypy narrows it
            return []
        return pair_layers(student, teacher, self.method, self.layers, where=where)

    def modifier(
        self,
        teachers: Sequence[keras.Model],
        pairs: Sequence[LayerPair] = (),
        *,
        task: Task = CLASSIFICATION,
    ) -> Modifier:
        """The modifier of a training; to be made in the strategy's scope.

        Args:
            teachers: From x to logits; they are evaluated as at inference and not trained. Where
                there are pairs, the first one is looked into.
            pairs: Of `self.pairs`, for the network that is trained.
            task: What the networks have learned; one without classes knows itself how one
                imitates the other.
        """
        first = _with_features(teachers[0], pairs)
        others = [_with_features(teacher, ()) for teacher in teachers[1:]]
        compared = [_Compared(self.method, pair) for pair in pairs]
        feature_weight = self.feature_weight
        if feature_weight is None:
            feature_weight = FEATURE_WEIGHTS.get(self.method, 0.0)

        def extra_loss(step: Forward) -> tf.Tensor:
            said, features = _asked(first, step.x)
            logits = [said, *(_asked(teacher, step.x)[0] for teacher in others)]
            share = 1.0 - self.student_loss_weight
            loss = share * self.logits_weight * self._on_logits(step, logits, task)
            for compare, own, shown in zip(compared, step.taps, features, strict=True):
                of_pair = compare(tf.cast(own, tf.float32), shown)
                loss += feature_weight / len(compared) * of_pair
            return loss

        return Modifier(
            "distill",
            extra_loss=extra_loss,
            taps=tuple(pair.student for pair in pairs),
            task_loss_weight=self.student_loss_weight,
            variables=tuple(variable for each in compared for variable in each.variables),
        )

    def keep(
        self, teachers: Sequence[keras.Model], *, where: str, task: Task = CLASSIFICATION
    ) -> Callable[[keras.Model], Modifier]:
        """What lets later stages go on with the lesson, see `Network.keeps`. Where a network has no
        layers left that suit the method, its logits alone go on learning."""

        def modifier(model: keras.Model) -> Modifier:
            try:
                pairs = self.pairs(model, teachers[0], where=where)
            except InputError:
                pairs = []
            return self.modifier(teachers, pairs, task=task)

        return modifier

    def _on_logits(self, step: Forward, logits: list[tf.Tensor], task: Task) -> tf.Tensor:
        if not task.is_classification:
            weights = self.teacher_weights or (1.0,) * len(logits)
            shares = [weight / sum(weights) for weight in weights]
            wanted = tf.add_n([s * each for s, each in zip(shares, logits, strict=True)])
            return tf.reduce_mean(task.imitation(step.logits, wanted, self.temperature))
        target = self._target(step.y, logits)
        if self.method == "dkd":
            return losses.decoupled_loss(
                step.logits, target, step.y, self.temperature, self.others_weight
            )
        return losses.soft_target_loss(step.logits, target, self.temperature)

    def _target(self, y: tf.Tensor, logits: list[tf.Tensor]) -> tf.Tensor:
        """The softened predictions of all teachers as one, (batch, classes)."""
        said = tf.stack([tf.nn.softmax(each / self.temperature) for each in logits])
        if self.combine == "average":
            return tf.reduce_mean(said, axis=0)
        if self.combine == "weighted":
            weights = tf.constant(self.teacher_weights) / sum(self.teacher_weights)
            return tf.einsum("t,tbc->bc", weights, said)
        stacked = tf.stack(logits)
        right = tf.nn.softmax(stacked) if self.student_loss_weight == 0 else y[None]
        cross_entropy = -tf.reduce_sum(right * tf.nn.log_softmax(stacked), axis=-1)
        return tf.einsum("tb,tbc->bc", tf.nn.softmax(-cross_entropy, axis=0), said)


class _Compared:
    """The loss of one pair of layers, with the projections that it trains."""

    def __init__(self, method: Method, pair: LayerPair) -> None:
        own, shown = pair.student.shape[-1], pair.teacher.shape[-1]
        self._is_embedded = method not in (*_MAPS, "features")
        self._loss: _FeatureLoss = _LOSSES[method]
        self._project: keras.Variable | None = None
        self._project_teacher: keras.Variable | None = None
        if method == "features":
            self._project = _projection(own, shown)
        elif method == "contrastive":
            self._project = _projection(own, _EMBEDDING)
            self._project_teacher = _projection(shown, _EMBEDDING)

    @property
    def variables(self) -> list[keras.Variable]:
        both = (self._project, self._project_teacher)
        return [variable for variable in both if variable is not None]

    def __call__(self, own: tf.Tensor, shown: tf.Tensor) -> tf.Tensor:
        if self._is_embedded:
            own, shown = losses.embedding(own), losses.embedding(shown)
        if self._project is not None:
            own = tf.tensordot(own, tf.convert_to_tensor(self._project.value), axes=1)
        if self._project_teacher is not None:
            shown = tf.matmul(shown, tf.convert_to_tensor(self._project_teacher.value))
        return self._loss(own, shown)


_LOSSES: dict[str, _FeatureLoss] = {
    "features": losses.hint_loss,
    "attention": losses.attention_loss,
    "relational": losses.relational_loss,
    "similarity": losses.similarity_loss,
    "contrastive": partial(losses.contrastive_loss, temperature=_CONTRAST),
}


def _projection(channels: int, wanted: int) -> keras.Variable:
    """A learned matrix over the channels: a 1×1 convolution, where there are positions."""
    return keras.Variable(keras.initializers.GlorotUniform()((channels, wanted)), name="projection")


def _with_features(teacher: keras.Model, pairs: Sequence[LayerPair]) -> keras.Model:
    tensors = [teacher.outputs[-1], *(pair.teacher for pair in pairs)]
    return keras.Model(teacher.inputs, tensors)


def _asked(teacher: keras.Model, x: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The logits of a teacher and its further outputs, as constants."""
    outputs = tf.nest.flatten(teacher(x, training=False))
    logits, *features = [tf.stop_gradient(tf.cast(output, tf.float32)) for output in outputs]
    return logits, features
