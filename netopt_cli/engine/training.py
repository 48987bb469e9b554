"""The training loop around the compiled step: epochs, validation, best weights, divergence.

Own code since Keras 3's `fit` fails under `MultiWorkerMirroredStrategy` (keras issue 20585) and
feeds every batch through the host. Here one call of the compiled function takes many steps, the
data lies on the device, and everything that a technique adds to training is a `Modifier` of the
same step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import keras
import tensorflow as tf

from netopt_cli.contracts import Modifier, Target
from netopt_cli.dataset import Dataset, FileSource
from netopt_cli.engine.evaluation import Evaluator
from netopt_cli.engine.feeds import make_feed
from netopt_cli.engine.optimizers import make_optimizer
from netopt_cli.engine.replicas import average_statistics, values_of_chief
from netopt_cli.engine.settings import TrainSettings
from netopt_cli.engine.step import compile_steps
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
        trainable_params: Values that the optimizer trained, of the model and of the modifiers.
        seconds: Wall time, compilation and validation included.
    """

    epochs: tuple[Epoch, ...]
    kept_epoch: int
    val_accuracy: float
    trainable_params: int
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
    stop_after: int | None = None,
) -> FitResult:
    """Trains `model` in place; it must have been built in the scope of the target's strategy.

    Args:
        stop_after: Runs exactly so many of the epochs, without early stopping: for a control that
            is to be trained as long as what it is compared with.

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
    policies = _compute_in(model, settings.mixed_precision)
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
    last_epoch = stop_after or settings.epochs
    patience = settings.early_stopping_epochs if stop_after is None else None
    history: list[Epoch] = []
    observer.training_starts(stage, settings.epochs, loop.total_steps)
    try:
        for number in range(last_epoch):
            trained = loop.train(number)
            with loop.averaged():
                row = loop.validate(number, trained)
                history.append(row)
                observer.epoch_ends(row)
                if number >= settled_from or row.epoch == last_epoch:
                    best.offer(row)
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
        for layer, policy in policies.items():
            layer.dtype_policy = policy
    best.restore()
    val_accuracy = best.val_accuracy
    if policies:
        # What is kept computes in float32 again, unlike what validation has seen.
        _, val_accuracy = Evaluator(model, data, data.validation)()
    return FitResult(
        epochs=tuple(history),
        kept_epoch=best.kept_epoch,
        val_accuracy=val_accuracy,
        trainable_params=loop.trainable_params,
        seconds=time.perf_counter() - started,
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


@dataclass(frozen=True)
class _Trained:
    """An epoch before it is validated: means over its steps, and its wall time."""

    loss: float
    accuracy: float
    learning_rate: float
    seconds: float


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
            others = [variable for modifier in modifiers for variable in modifier.variables]
            self._optimizer = make_optimizer(settings, model, self.total_steps, others)
        trained = [*model.trainable_variables, *others]
        self.trainable_params = sum(math.prod(variable.shape) for variable in trained)
        self._take_steps = compile_steps(
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
        self._first_loss = math.inf
        self._steps_per_call = settings.steps_per_call
        if any(modifier.before_steps is not None for modifier in modifiers):
            # A schedule on the host moves between calls: give it enough of them.
            often = max(1, self.total_steps // HOST_CALLS)
            self._steps_per_call = min(self._steps_per_call, often)

    def train(self, number: int) -> _Trained:
        """Trains one epoch, counted from 0."""
        started = time.perf_counter()
        steps = self._feed.steps
        handle = self._feed.epoch(number)
        first = number * steps
        loss_sum = accuracy_sum = 0.0
        done = 0
        rate = float(keras.ops.convert_to_numpy(self._optimizer.learning_rate))
        while done < steps:
            # The very first step goes alone: its loss, before any update, tells what growing is.
            count = 1 if first + done == 0 else min(self._steps_per_call, steps - done)
            for modifier in self._modifiers:
                if modifier.before_steps is not None:
                    modifier.before_steps(first + done, self.total_steps)
            loss, accuracy, bad_step = (
                float(value) for value in self._take_steps(handle, done, count, first)
            )
            if bad_step >= 0:
                self._diverged("the loss is not a finite number", int(bad_step) + 1, number)
            if first + done == 0:
                self._first_loss = loss
            loss_sum += loss
            accuracy_sum += accuracy
            done += count
            self._observer.steps_done(first + done, loss / count, accuracy / count)
        mean_loss = loss_sum / steps
        if mean_loss > DIVERGED_TIMES * max(self._first_loss, math.log(self._data.classes)):
            self._diverged(f"the loss grew to {mean_loss:g}", first + done, number)
        if first + done == self.total_steps:
            for modifier in self._modifiers:
                if modifier.before_steps is not None:
                    modifier.before_steps(self.total_steps, self.total_steps)
        average_statistics(self._model, self._target)
        return _Trained(mean_loss, accuracy_sum / steps, rate, time.perf_counter() - started)

    def validate(self, number: int, trained: _Trained) -> Epoch:
        """Evaluates the model after an epoch's training."""
        started = time.perf_counter()
        val_loss, val_accuracy = values_of_chief(self._evaluate(), self._target)
        images = self._feed.steps * self._feed.batch_size
        return Epoch(
            stage=self._stage,
            epoch=number + 1,
            epochs=self._settings.epochs,
            loss=trained.loss,
            accuracy=trained.accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=trained.learning_rate,
            seconds=trained.seconds + time.perf_counter() - started,
            images_per_second=images / trained.seconds,
        )

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with its averages, if a modifier keeps some, in place of its weights."""
        pairs = [pair for modifier in self._modifiers for pair in modifier.averages]
        own = [weight.numpy() for weight, _ in pairs]
        for weight, average in pairs:
            weight.assign(average.value)
        try:
            yield
        finally:
            for (weight, _), value in zip(pairs, own, strict=True):
                weight.assign(value)

    def _diverged(self, what: str, step: int, epoch: int) -> NoReturn:
        raise DivergedError(
            f"{what} at step {step} of '{self._stage}' (epoch {epoch + 1}). Try a lower "
            f"train.learning_rate (now {self._settings.learning_rate:g}), "
            "train.warmup_fraction=0.1 or train.clip_norm=1.0."
        )


def _compute_in(model: keras.Model, mixed_precision: str) -> dict[keras.Layer, Any]:
    """Lets float32 layers compute in lower precision; returns them with their own policies."""
    if mixed_precision == "none":
        return {}
    changed = {
        layer: layer.dtype_policy
        for layer in model._flatten_layers(include_self=False)
        if layer.dtype_policy.name == "float32"
    }
    for layer in changed:
        layer.dtype_policy = f"mixed_{mixed_precision}"
    return changed
