"""The compiled training loop: one step, written once, under a `tf.distribute` strategy.

Own code since Keras 3's `fit` fails under `MultiWorkerMirroredStrategy` (keras issue 20585) and
feeds every batch through the host. Here one call of the compiled function takes many steps, the
data lies on the device, and everything that a technique adds to training is a `Modifier` of the
same step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.contracts import Modifier, Target
from netopt_cli.dataset import Dataset, FileSource
from netopt_cli.engine.evaluation import Evaluator
from netopt_cli.engine.feeds import Feed, make_feed
from netopt_cli.engine.optimizers import make_optimizer
from netopt_cli.engine.settings import TrainSettings
from netopt_cli.errors import ConfigError, DivergedError
from netopt_cli.observer import Epoch, Observer

DIVERGED_TIMES = 20.0
"""A mean loss over an epoch of so many times the first one, or that of guessing, is divergence."""

HOST_CALLS = 50
"""How often a training calls a modifier's `before_steps` at least, if it has as many steps."""


@dataclass(frozen=True)
class FitResult:
    """What a training did.

    Attributes:
        epochs: One entry for each epoch that was run.
        kept_epoch: The epoch whose weights the model ends with, counted from 1.
        val_accuracy: Of the weights that the model ends with.
        seconds: Wall time, compilation and validation included.
    """

    epochs: tuple[Epoch, ...]
    kept_epoch: int
    val_accuracy: float
    seconds: float


def fit(
    model: keras.Model,
    data: Dataset,
    settings: TrainSettings,
    *,
    target: Target,
    seed: int,
    modifiers: Sequence[Modifier] = (),
    observer: Observer,
    stage: str,
) -> FitResult:
    """Trains `model` in place; it must have been built in the scope of the target's strategy.

    Raises:
        ConfigError: The batch cannot be shared out evenly among the replicas.
        DivergedError: The loss is not finite, or far worse than guessing over an epoch. The model
            then has the weights of the last good epoch.
        DataError: A file of the training split cannot be decoded.
    """
    started = time.perf_counter()
    replicas = target.strategy.num_replicas_in_sync
    if settings.batch_size % replicas:
        raise ConfigError(
            f"train.batch_size must be a multiple of the {replicas} replicas of "
            f"target={target.name}. Received: train.batch_size={settings.batch_size}"
        )
    _set_dtype_policy(model, settings.mixed_precision)
    loop = TrainingLoop(
        model,
        data,
        settings,
        target=target,
        seed=seed,
        modifiers=modifiers,
        observer=observer,
        stage=stage,
    )
    best = _Best(model, always_last=not settings.best_weights)
    settled_from = max((m.settles_at for m in modifiers), default=0.0) * settings.epochs
    history: list[Epoch] = []
    observer.training_starts(stage, settings.epochs, loop.total_steps)
    try:
        for number in range(settings.epochs):
            row = loop.epoch(number)
            history.append(row)
            observer.epoch_ends(row)
            if row.epoch >= settled_from:
                best.offer(row)
            patience = settings.early_stopping_epochs
            if patience and best.best_epoch and row.epoch - best.best_epoch >= patience:
                break
    except (DivergedError, KeyboardInterrupt):
        best.restore()
        raise
    except tf.errors.OpError:
        if isinstance(data.train, FileSource):
            data.train.check_files()  # names the file, which the compiled pipeline cannot
        raise
    finally:
        observer.training_ends()
        _set_dtype_policy(model, "none")
    best.restore()
    return FitResult(
        tuple(history), best.kept_epoch, best.val_accuracy, time.perf_counter() - started
    )


class _Best:
    """The weights to end with, on the host; before the first offer, the initial ones."""

    def __init__(self, model: keras.Model, *, always_last: bool) -> None:
        self._model = model
        self._always_last = always_last
        self._weights = model.get_weights()
        self._key = (-math.inf, -math.inf)
        self.best_epoch = 0
        self.kept_epoch = 0
        self.val_accuracy = math.nan

    def offer(self, row: Epoch) -> None:
        """Takes the model's weights when the epoch is better: accuracy first, then the loss."""
        key = (row.val_accuracy, -row.val_loss)
        if key > self._key:
            self._key = key
            self.best_epoch = row.epoch
        if self.best_epoch == row.epoch or self._always_last:
            self._weights = self._model.get_weights()
            self.kept_epoch = row.epoch
            self.val_accuracy = row.val_accuracy

    def restore(self) -> None:
        self._model.set_weights(self._weights)


class TrainingLoop:
    """One training's compiled functions and what they work on."""

    def __init__(
        self,
        model: keras.Model,
        data: Dataset,
        settings: TrainSettings,
        *,
        target: Target,
        seed: int,
        modifiers: Sequence[Modifier],
        observer: Observer,
        stage: str,
    ) -> None:
        self._model = model
        self._data = data
        self._settings = settings
        self._target = target
        self._modifiers = modifiers
        self._observer = observer
        self._stage = stage
        self._feed = make_feed(
            data.train,
            settings.batch_size,
            worker=target.worker,
            workers=target.workers,
            replicas=target.strategy.num_replicas_in_sync,
            seed=seed,
        )
        self.total_steps = self._feed.steps * settings.epochs
        with target.strategy.scope():
            self._optimizer = make_optimizer(settings, model, self.total_steps)
        self._take_steps = _compile(
            model,
            data,
            self._feed,
            self._optimizer,
            target=target,
            modifiers=modifiers,
            clip_norm=settings.clip_norm,
            seed=seed,
        )
        self._evaluate = Evaluator(model, data, data.validation)
        self._first_loss = 0.0
        self._steps_per_call = settings.steps_per_call
        if any(modifier.before_steps is not None for modifier in modifiers):
            # A schedule on the host moves between calls: give it enough of them.
            often = max(1, self.total_steps // HOST_CALLS)
            self._steps_per_call = min(self._steps_per_call, often)

    def epoch(self, number: int) -> Epoch:
        """Trains one epoch, counted from 0, and validates."""
        started = time.perf_counter()
        steps = self._feed.steps
        handle = self._feed.epoch(number)
        first = number * steps
        loss_sum = accuracy_sum = 0.0
        done = 0
        while done < steps:
            count = min(self._steps_per_call, steps - done)
            for modifier in self._modifiers:
                if modifier.before_steps is not None:
                    modifier.before_steps(first + done, self.total_steps)
            loss, accuracy, bad_step = (
                float(value) for value in self._take_steps(handle, done, count, first)
            )
            if bad_step >= 0:
                self._diverged("the loss is not a finite number", int(bad_step) + 1, number)
            if first + done == 0:
                self._first_loss = loss / count
            loss_sum += loss
            accuracy_sum += accuracy
            done += count
            self._observer.steps_done(first + done, loss / count, accuracy / count)
        mean_loss = loss_sum / steps
        if mean_loss > DIVERGED_TIMES * max(self._first_loss, math.log(self._data.classes)):
            self._diverged(f"the loss grew to {mean_loss:g}", first + done, number)
        training_seconds = time.perf_counter() - started
        _average_statistics(self._model, self._target)
        val_loss, val_accuracy = _of_chief(self._evaluate(), self._target)
        return Epoch(
            stage=self._stage,
            epoch=number + 1,
            epochs=self._settings.epochs,
            loss=mean_loss,
            accuracy=accuracy_sum / steps,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=float(keras.ops.convert_to_numpy(self._optimizer.learning_rate)),
            seconds=time.perf_counter() - started,
            images_per_second=steps * self._feed.batch_size / training_seconds,
        )

    def _diverged(self, what: str, step: int, epoch: int) -> NoReturn:
        raise DivergedError(
            f"{what} at step {step} of '{self._stage}' (epoch {epoch + 1}). Try a lower "
            f"train.learning_rate (now {self._settings.learning_rate:g}), "
            "train.warmup_fraction=0.1 or train.clip_norm=1.0."
        )


def _compile(
    model: keras.Model,
    data: Dataset,
    feed: Feed,
    optimizer: keras.optimizers.Optimizer,
    *,
    target: Target,
    modifiers: Sequence[Modifier],
    clip_norm: float | None,
    seed: int,
) -> Any:
    """Returns (handle, start, count, epoch's first step) -> loss sum, accuracy sum, bad step."""
    strategy = target.strategy
    replicas = strategy.num_replicas_in_sync
    local_replicas = replicas // target.workers
    variables = model.trainable_variables
    transforms = [m.transform_batch for m in modifiers if m.transform_batch is not None]
    extra_losses = [m.extra_loss for m in modifiers if m.extra_loss is not None]
    constraints = [m.constrain for m in modifiers if m.constrain is not None]
    task_loss_weight = math.prod(m.task_loss_weight for m in modifiers)

    def replica_step(drawn: tuple[tf.Tensor, ...], step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        context = tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
        x, labels = feed.samples(drawn, replica % local_replicas, local_replicas)
        x = data.normalization.tensor(x)
        y = tf.one_hot(labels, data.classes)
        draw = step * replicas + replica
        if data.augment is not None:
            x = data.augment(x, tf.stack([seed, draw]))
        for index, transform in enumerate(transforms):
            x, y = transform(x, y, tf.stack([seed + 7919 * (index + 1), draw]))
        with tf.GradientTape() as tape:
            logits = tf.cast(model(x, training=True), tf.float32)
            task_loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(y, logits))
            loss = task_loss if task_loss_weight == 1.0 else task_loss_weight * task_loss
            for extra_loss in extra_losses:
                loss += extra_loss(x, y, logits)
            if model.losses:
                loss += tf.add_n(model.losses)
            scaled = optimizer.scale_loss(loss / replicas if replicas > 1 else loss)
        gradients = tape.gradient(scaled, [v.value for v in variables])
        if clip_norm is not None:
            gradients = _clip(gradients, clip_norm, optimizer, context, replicas)
        optimizer.apply(gradients, variables)
        hit = tf.argmax(logits, axis=-1) == tf.argmax(y, axis=-1)
        return loss, tf.reduce_mean(tf.cast(hit, tf.float32))

    @tf.function
    def take_steps(
        handle: Any, start: tf.Tensor, count: tf.Tensor, first: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        loss_sum = accuracy_sum = tf.constant(0.0)
        bad_step = tf.constant(-1)
        for index in tf.range(start, start + count):
            step = first + index
            drawn = feed.draw(handle, index)
            loss, accuracy = strategy.run(replica_step, args=(drawn, step))
            for constrain in constraints:
                constrain()
            loss = strategy.reduce("MEAN", loss, axis=None)
            accuracy_sum += strategy.reduce("MEAN", accuracy, axis=None)
            loss_sum += loss
            if bad_step < 0 and not tf.math.is_finite(loss):
                bad_step = step
        return loss_sum, accuracy_sum, bad_step

    def call(handle: Any, start: int, count: int, first: int) -> Any:
        return take_steps(handle, tf.constant(start), tf.constant(count), tf.constant(first))

    return call


def _clip(
    gradients: list[tf.Tensor],
    clip_norm: float,
    optimizer: keras.optimizers.Optimizer,
    context: Any,
    replicas: int,
) -> list[tf.Tensor]:
    """Clips by the norm of the gradient of the *global* batch, so that replicas do not matter.

    The optimizer adds up the replicas' gradients, hence the division; float16 gradients carry the
    loss scale, hence the scaled bound.
    """
    scale = getattr(optimizer, "dynamic_scale", 1.0)
    if replicas > 1:
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    clipped, _ = tf.clip_by_global_norm(gradients, clip_norm * tf.cast(scale, tf.float32))
    return [gradient / replicas for gradient in clipped] if replicas > 1 else clipped


def _average_statistics(model: keras.Model, target: Target) -> None:
    """Makes the replicas agree on BatchNorm's moving statistics, which nobody else aggregates."""
    strategy = target.strategy
    statistics = [
        v.value for v in model.non_trainable_variables if v.dtype == "float32" and len(v.shape)
    ]
    if strategy.num_replicas_in_sync == 1 or not statistics:
        return

    @tf.function
    def mean() -> Any:
        def replica_mean() -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            values = [tf.identity(variable) for variable in statistics]
            return context.all_reduce(tf.distribute.ReduceOp.MEAN, values)

        return strategy.run(replica_mean)

    for variable, value in zip(statistics, mean(), strict=True):
        variable.assign(np.asarray(strategy.experimental_local_results(value)[0]))


def _of_chief(values: tuple[float, ...], target: Target) -> tuple[float, ...]:
    """The chief's figures on every worker: decisions that depend on them must be the same ones,
    also where the workers' processors round differently."""
    if target.workers == 1:
        return values

    @tf.function
    def broadcast(own: tf.Tensor) -> Any:
        def replica_sum() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            mine = own if context.replica_id_in_sync_group == 0 else tf.zeros_like(own)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        return target.strategy.run(replica_sum)

    result = broadcast(tf.constant(values, tf.float32))
    return tuple(float(v) for v in target.strategy.experimental_local_results(result)[0])


def _set_dtype_policy(model: keras.Model, mixed_precision: str) -> None:
    policy = "float32" if mixed_precision == "none" else f"mixed_{mixed_precision}"
    for layer in model._flatten_layers(include_self=False):
        if layer.dtype_policy.name != policy:
            layer.dtype_policy = policy
