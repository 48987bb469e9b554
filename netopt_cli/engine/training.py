"""The training loop around the compiled step: epochs, validation, best weights, divergence.

Own code since Keras 3's `fit` fails under `MultiWorkerMirroredStrategy` (keras issue 20585) and
feeds every batch through the host. Here one call of the compiled function takes many steps, the
data lies on the device, and everything that a technique adds to training is a `Modifier` of the
same step.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, NoReturn

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.contracts import Modifier, Target
from netopt_cli.dataset import Dataset, FileSource
from netopt_cli.engine.checkpoints import Checkpoints, Snapshot, TrainingFiles
from netopt_cli.engine.evaluation import Evaluator
from netopt_cli.engine.feeds import make_feed
from netopt_cli.engine.identity import training_name
from netopt_cli.engine.interruption import Interruption, finishing_steps
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


Origin = Literal["trained", "taken up", "over"]


@dataclass(frozen=True)
class FitResult:
    """What a training did.

    Attributes:
        epochs: One entry for each epoch that was run.
        kept_epoch: The epoch whose weights the model ends with, counted from 1.
        val_accuracy: Of the weights that the model ends with.
        trainable_params: Values that the optimizer trained, of the model and of the modifiers.
        seconds: Wall time, compilation and validation included; of a training that was taken up or
            over, that of all its parts.
        origin: `trained` here from its beginning to its end, `taken up` where this run had left
            it, or taken `over` from another run.
    """

    epochs: tuple[Epoch, ...]
    kept_epoch: int
    val_accuracy: float
    trainable_params: int
    seconds: float
    origin: Origin = "trained"


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
    checkpoints: Checkpoints | None = None,
    lineage: str = "",
) -> FitResult:
    """Trains `model` in place; it must have been built in the scope of the target's strategy.

    Args:
        stop_after: Runs exactly so many of the epochs, without early stopping: for a control that
            is to be trained as long as what it is compared with.
        checkpoints: Where the training is kept, and looked for before it begins.
        lineage: See `identity.training_name`.

    Raises:
        ConfigError: The batch cannot be shared out evenly among the replicas.
        DivergedError: The loss is not finite, or far worse than guessing over an epoch. The model
            then has the weights of the last good epoch.
        DataError: A file of the training split cannot be decoded.
        KeyboardInterrupt: After the steps under way, which are kept.
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
        last_epoch=stop_after or settings.epochs,
        started=started,
    )
    if checkpoints is not None:
        name = training_name(
            model,
            loop.variables,
            data,
            settings,
            target=target,
            seed=seed,
            modifiers=modifiers,
            stop_after=stop_after,
            lineage=lineage,
        )
        loop.take_up(checkpoints.of(name))
    patience = settings.early_stopping_epochs if stop_after is None else None
    observer.training_starts(stage, settings.epochs, loop.total_steps)
    try:
        if loop.history:
            observer.taken_up(loop.history, loop.origin)
        with finishing_steps() as interruption:
            while not loop.is_finished(patience):
                loop.next_epoch(interruption)
    except (DivergedError, KeyboardInterrupt):
        loop.best.restore()
        raise
    except tf.errors.OpError:
        if isinstance(data.train, FileSource):
            data.train.check_files()  # names the file, which the compiled pipeline cannot
        raise
    finally:
        observer.training_ends()
        for layer, policy in policies.items():
            layer.dtype_policy = policy
    loop.finish()
    val_accuracy = loop.best.val_accuracy
    if policies:
        # What is kept computes in float32 again, unlike what validation has seen.
        _, val_accuracy = Evaluator(model, data, data.validation)()
    return FitResult(
        epochs=tuple(loop.history),
        kept_epoch=loop.best.kept_epoch,
        val_accuracy=val_accuracy,
        trainable_params=loop.trainable_params,
        seconds=loop.seconds,
        origin=loop.origin,
    )


class _Best:
    """The weights to end with, on the host; before the first offer, the initial ones."""

    def __init__(self, model: keras.Model, *, always_last: bool) -> None:
        self._model = model
        self._always_last = always_last
        self.weights = model.get_weights()
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
            self.weights = self._model.get_weights()
            self.kept_epoch = row.epoch
            self.val_accuracy = row.val_accuracy

    def restore(self) -> None:
        self._model.set_weights(self.weights)

    def state(self) -> dict[str, Any]:
        return {
            "key": self._key,
            "best_epoch": self.best_epoch,
            "kept_epoch": self.kept_epoch,
            "val_accuracy": self.val_accuracy,
        }

    def set_state(self, state: dict[str, Any], weights: list[np.ndarray]) -> None:
        self.weights = weights
        self._key = tuple(state["key"])
        self.best_epoch = state["best_epoch"]
        self.kept_epoch = state["kept_epoch"]
        self.val_accuracy = state["val_accuracy"]


@dataclass
class _Cursor:
    """Where a training is.

    Attributes:
        done: Steps of the current epoch that are done.
        loss_sum: Over them, as `accuracy_sum`.
        learning_rate: Of the first of them.
        seconds: That they took.
    """

    done: int = 0
    loss_sum: float = 0.0
    accuracy_sum: float = 0.0
    learning_rate: float = 0.0
    seconds: float = 0.0


class TrainingLoop:
    """One training's compiled functions, what they work on, and how far it is."""

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
        last_epoch: int,
        started: float,
    ) -> None:
        """Args: started: Time (`perf_counter`) that `seconds` counts from."""
        self._model = model
        self._data = data
        self._settings = settings
        self._target = target
        self._modifiers = modifiers
        self._observer = observer
        self._stage = stage
        self._last_epoch = last_epoch
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
        self._settled_from = max((m.settles_at for m in modifiers), default=0.0) * settings.epochs
        self._steps_per_call = settings.steps_per_call
        if any(modifier.before_steps is not None for modifier in modifiers):
            # A schedule on the host moves between calls: give it enough of them.
            often = max(1, self.total_steps // HOST_CALLS)
            self._steps_per_call = min(self._steps_per_call, often)
        self.history: list[Epoch] = []
        self.best = _Best(model, always_last=not settings.best_weights)
        self.origin: Origin = "trained"
        self._cursor = _Cursor()
        self._first_loss = math.inf
        self._is_over = False
        self._files: TrainingFiles | None = None
        self._started = started
        self._seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Wall time of the training, its earlier parts included."""
        return self._seconds_before + time.perf_counter() - self._started

    @functools.cached_property
    def variables(self) -> list[tf.Variable]:
        return self._take_steps.variables(self._feed.epoch(0))

    def take_up(self, files: TrainingFiles) -> None:
        """Goes on from the newest snapshot of this training, if there is one, and keeps it from
        now on."""
        self._files = files
        found = files.find()
        if found is None:
            return
        snapshot, is_of_another_run = found
        for variable, value in zip(self.variables, snapshot.variables, strict=True):
            variable.assign(value)
        for modifier, memory in zip(self._modifiers, snapshot.state["memories"], strict=True):
            modifier.memory.update(memory)
        self.best.set_state(snapshot.state["best"], snapshot.best)
        self.history = [Epoch(**row | {"stage": self._stage}) for row in snapshot.state["history"]]
        self._cursor = _Cursor(**snapshot.state["cursor"])
        self._first_loss = snapshot.state["first_loss"]
        self._is_over = snapshot.is_finished
        self._seconds_before = snapshot.state["seconds"]
        self._started = time.perf_counter()
        self.origin = "over" if is_of_another_run else "taken up"

    def is_finished(self, patience: int | None) -> bool:
        """Args: patience: Epochs without a better one after which it is, if given."""
        if self._is_over or len(self.history) >= self._last_epoch:
            return True
        best_epoch = self.best.best_epoch
        return bool(patience and best_epoch and len(self.history) - best_epoch >= patience)

    def next_epoch(self, interruption: Interruption) -> None:
        """Trains one epoch, or what is left of it, and validates."""
        number = len(self.history)
        self._train(number, interruption)
        with self._averaged():
            row = self._validate(number)
            self.history.append(row)
            self._cursor = _Cursor()
            self._observer.epoch_ends(row)
            if number >= self._settled_from or row.epoch == self._last_epoch:
                self.best.offer(row)
        if interruption.is_asked:
            self._keep()
            raise KeyboardInterrupt

    def finish(self) -> None:
        """Ends with the best weights."""
        if not self._is_over:
            self._is_over = True
            self._keep()
        self.best.restore()

    def _train(self, number: int, interruption: Interruption) -> None:
        """Trains epoch `number`, counted from 0, from where the cursor is."""
        cursor, steps = self._cursor, self._feed.steps
        handle = self._feed.epoch(number, cursor.done)
        first = number * steps
        if cursor.done == 0:
            cursor.learning_rate = float(keras.ops.convert_to_numpy(self._optimizer.learning_rate))
        while cursor.done < steps:
            started = time.perf_counter()
            # The very first step goes alone: its loss, before any update, tells what growing is.
            is_first = first + cursor.done == 0
            count = 1 if is_first else min(self._steps_per_call, steps - cursor.done)
            self._tell_modifiers(first + cursor.done)
            loss, accuracy, bad_step = self._take_steps(handle, cursor.done, count, first)
            if bad_step >= 0:
                self._diverged("the loss is not a finite number", bad_step + 1, number)
            if is_first:
                self._first_loss = loss
            cursor.loss_sum += loss
            cursor.accuracy_sum += accuracy
            cursor.done += count
            cursor.seconds += time.perf_counter() - started
            self._observer.steps_done(first + cursor.done, loss / count, accuracy / count)
            if interruption.is_asked or (self._files is not None and self._files.is_due):
                self._keep()
            if interruption.is_asked:
                raise KeyboardInterrupt
        mean_loss = cursor.loss_sum / steps
        if mean_loss > DIVERGED_TIMES * max(self._first_loss, math.log(self._data.classes)):
            self._diverged(f"the loss grew to {mean_loss:g}", first + steps, number)
        if first + steps == self.total_steps:
            self._tell_modifiers(self.total_steps)
        average_statistics(self._model, self._target)

    def _tell_modifiers(self, step: int) -> None:
        for modifier in self._modifiers:
            if modifier.before_steps is not None:
                modifier.before_steps(step, self.total_steps)

    def _keep(self) -> None:
        """Saves where the training is."""
        if self._files is None:
            return
        state = {
            "memories": [modifier.memory for modifier in self._modifiers],
            "best": self.best.state(),
            "history": [asdict(row) for row in self.history],
            "cursor": asdict(self._cursor),
            "first_loss": self._first_loss,
            "seconds": self.seconds,
        }
        values = [variable.numpy() for variable in self.variables]
        self._files.save(Snapshot(values, self.best.weights, state, self._is_over))

    def _validate(self, number: int) -> Epoch:
        """Evaluates the model after an epoch's training."""
        started = time.perf_counter()
        cursor, steps = self._cursor, self._feed.steps
        val_loss, val_accuracy = values_of_chief(self._evaluate(), self._target)
        return Epoch(
            stage=self._stage,
            epoch=number + 1,
            epochs=self._settings.epochs,
            loss=cursor.loss_sum / steps,
            accuracy=cursor.accuracy_sum / steps,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=cursor.learning_rate,
            seconds=cursor.seconds + time.perf_counter() - started,
            images_per_second=steps * self._feed.batch_size / cursor.seconds,
        )

    @contextmanager
    def _averaged(self) -> Iterator[None]:
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
