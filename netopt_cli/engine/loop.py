"""One training in motion: its compiled functions, its data, and how far it is."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, NoReturn

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.contracts import Modifier, Target
from netopt_cli.dataset import Dataset
from netopt_cli.engine.checkpoints import Snapshot, TrainingFiles
from netopt_cli.engine.evaluation import Evaluator
from netopt_cli.engine.feeds import make_feed
from netopt_cli.engine.interruption import Interruption
from netopt_cli.engine.optimizers import make_optimizer
from netopt_cli.engine.replicas import average_statistics, values_of_chief
from netopt_cli.engine.settings import TrainSettings
from netopt_cli.engine.step import compile_steps
from netopt_cli.errors import DivergedError
from netopt_cli.observer import Epoch, Observer

DIVERGED_TIMES = 20.0
"""A mean loss over an epoch of so many times the first one, or that of guessing, is divergence."""

HOST_CALLS = 50
"""How often a training calls a modifier's `before_steps` at least, if it has as many steps."""


Origin = Literal["trained", "taken up", "taken over"]
"""Whether a training was done here from its beginning, goes on where this run had left it, or was
done by another run."""


class _Best:
    """The weights to end with, on the host; before the first offer, the initial ones."""

    def __init__(
        self, model: keras.Model, *, always_last: bool, rank: Callable[[float], float]
    ) -> None:
        """Args: rank: The score, or what is the higher the better instead."""
        self._model = model
        self._always_last = always_last
        self._rank = rank
        self.weights = model.get_weights()
        self._key = (-math.inf, -math.inf)
        self.best_epoch = 0
        self.kept_epoch = 0
        self.val_score = math.nan

    def offer(self, row: Epoch) -> None:
        """Takes the model's weights when the epoch is better: the score first, then the loss."""
        rank = self._rank(row.val_score)
        key = (-math.inf if math.isnan(rank) else rank, -row.val_loss)
        if key > self._key:
            self._key = key
            self.best_epoch = row.epoch
        if self.best_epoch == row.epoch or self._always_last:
            self.weights = self._model.get_weights()
            self.kept_epoch = row.epoch
            self.val_score = row.val_score

    def restore(self) -> None:
        self._model.set_weights(self.weights)

    def state(self) -> dict[str, Any]:
        return {
            "key": self._key,
            "best_epoch": self.best_epoch,
            "kept_epoch": self.kept_epoch,
            "val_score": self.val_score,
        }

    def set_state(self, state: dict[str, Any], weights: list[np.ndarray]) -> None:
        self.weights = weights
        self._key = tuple(state["key"])
        self.best_epoch = state["best_epoch"]
        self.kept_epoch = state["kept_epoch"]
        self.val_score = state["val_score"]


@dataclass
class _Cursor:
    """Where a training is.

    Attributes:
        done: Steps of the current epoch that are done.
        loss_sum: Over them, as `score_sum`.
        learning_rate: Of the first of them.
        seconds: That they took.
    """

    done: int = 0
    loss_sum: float = 0.0
    score_sum: float = 0.0
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
            self._optimizer = make_optimizer(settings, model, self.total_steps, modifiers)
        trained = [*model.trainable_variables, *(v for m in modifiers for v in m.trained)]
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
        self.best = _Best(model, always_last=not settings.best_weights, rank=data.task.rank)
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
        self.origin = "taken over" if is_of_another_run else "taken up"

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
            loss, score, bad_step = self._take_steps(handle, cursor.done, count, first)
            if bad_step >= 0:
                self._diverged("the loss is not a finite number", bad_step + 1, number)
            if is_first:
                self._first_loss = loss
            cursor.loss_sum += loss
            cursor.score_sum += score
            cursor.done += count
            cursor.seconds += time.perf_counter() - started
            self._observer.steps_done(first + cursor.done, loss / count, score / count)
            if interruption.is_asked or (self._files is not None and self._files.is_due):
                self._keep()
            if interruption.is_asked:
                raise KeyboardInterrupt
        mean_loss = cursor.loss_sum / steps
        guessing = self._data.task.guessing_loss(self._data.classes)
        if mean_loss > DIVERGED_TIMES * max(self._first_loss, guessing):
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
        val_loss, val_score = values_of_chief(self._evaluate(), self._target)
        return Epoch(
            stage=self._stage,
            epoch=number + 1,
            epochs=self._settings.epochs,
            loss=cursor.loss_sum / steps,
            score=cursor.score_sum / steps,
            val_loss=val_loss,
            val_score=val_score,
            metric=self._data.task.metric,
            learning_rate=cursor.learning_rate,
            seconds=cursor.seconds + time.perf_counter() - started,
            samples_per_second=steps * self._feed.batch_size / cursor.seconds,
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
            f"{what} at step {step} of '{self._stage}' (epoch {epoch + 1}), with a learning rate "
            f"of {self._settings.learning_rate:g}"
        )
