"""The training step: written once, compiled once a training, for one device or many."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import keras
import tensorflow as tf

from netopt_cli.contracts import Forward, Modifier, Target
from netopt_cli.dataset import Dataset
from netopt_cli.engine.feeds import Feed
from netopt_cli.engine.replicas import clip_gradients
from netopt_cli.errors import InputError
from netopt_cli.tasks import Task

_Computed = tuple[tf.Tensor, list[tuple[tf.Tensor, ...]], list[tf.Tensor]]
_Found = tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]
_Pairs = list[tuple[keras.Variable, tf.Tensor]]


class Steps:
    """The compiled steps of one training."""

    def __init__(self, take_steps: Any) -> None:
        self._take_steps = take_steps

    def __call__(self, handle: Any, start: int, count: int, first: int) -> tuple[float, float, int]:
        """Takes steps of one epoch.

        Args:
            handle: Of the epoch, from the feed.
            start: First step of the epoch that is taken.
            count: How many.
            first: Steps of earlier epochs.

        Returns:
            The sums of the losses and of the scores of the batches, and the number of the first
            step whose loss is not finite (-1: none).
        """
        counts = (tf.constant(start), tf.constant(count), tf.constant(first))
        loss, score, bad_step = self._take_steps(handle, *counts)
        return float(loss), float(score), int(bad_step)

    def variables(self, handle: Any) -> list[tf.Variable]:
        """All that the steps read or write and that outlives them, in the order of the program:
        weights, slots of the optimizer, masks, teachers, states of random generators.

        Compiles the steps, which the first call then need not do.
        """
        counts = [tf.constant(0)] * 3
        compiled = self._take_steps.get_concrete_function(handle, *counts)
        by_handle = {id(variable.handle): variable for variable in compiled.variables}
        captured = (id(outer) for outer, _ in compiled.graph.captures)
        return [by_handle[handle] for handle in captured if handle in by_handle]


def compile_steps(
    model: keras.Model,
    data: Dataset,
    feed: Feed,
    optimizer: keras.optimizers.Optimizer,
    *,
    target: Target,
    modifiers: Sequence[Modifier],
    clip_norm: float | None,
    seed: int,
) -> Steps:
    """Compiles the steps of one training: data, forward, loss, update, constraints, sums."""
    strategy = target.strategy
    replicas = strategy.num_replicas_in_sync
    local_replicas = replicas // target.workers
    variables = [*model.trainable_variables, *(v for m in modifiers for v in m.trained)]
    task = data.task
    gradients_of = _gradients(
        model, modifiers, optimizer, variables, task=task, replicas=replicas, seed=seed
    )
    transforms = [m.transform_batch for m in modifiers if m.transform_batch is not None]
    proximals = [m.proximal for m in modifiers if m.proximal is not None]
    # What averages weights takes them as all other constraints have left them.
    averages_last = sorted(modifiers, key=lambda m: bool(m.averages))
    constraints = [m.constrain for m in averages_last if m.constrain is not None]

    def replica_step(drawn: tuple[tf.Tensor, ...], step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        context = tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
        x, labels = feed.samples(drawn, replica % local_replicas, local_replicas)
        x = data.normalization.tensor(x)
        y = task.targets(x, labels, data.classes)
        draw = step * replicas + replica
        if data.augment is not None:
            x = data.augment(x, tf.stack([seed, draw]))
        for index, transform in enumerate(transforms):
            x, y = transform(x, y, tf.stack([(seed + 7919 * (index + 1)) % 2**31, draw]))
        gradients, loss, logits = gradients_of(x, y, draw)
        if clip_norm is not None:
            gradients = clip_gradients(gradients, clip_norm, optimizer, context, replicas)
        optimizer.apply(gradients, variables)
        return loss, task.batch_score(y, logits)

    @tf.function
    def take_steps(
        handle: Any, start: tf.Tensor, count: tf.Tensor, first: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        loss_sum = score_sum = tf.constant(0.0)
        bad_step = tf.constant(-1)
        for index in tf.range(start, start + count):
            step = first + index
            drawn = feed.draw(handle, index)
            learning_rate = tf.convert_to_tensor(optimizer.learning_rate)  # The update ends it.
            loss, score = strategy.run(replica_step, args=(drawn, step))
            for proximal in proximals:
                proximal(learning_rate)
            for constrain in constraints:
                constrain()
            loss = strategy.reduce("MEAN", loss, axis=None)
            score_sum += strategy.reduce("MEAN", score, axis=None)
            loss_sum += loss
            if bad_step < 0 and not tf.math.is_finite(loss):
                bad_step = step
        return loss_sum, score_sum, bad_step

    return Steps(take_steps)


def _gradients(
    model: keras.Model,
    modifiers: Sequence[Modifier],
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    *,
    task: Task,
    replicas: int,
    seed: int,
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], _Found]:
    """(x, y, draw) -> the scaled gradient of the whole loss, the loss, the logits."""
    forward = _forward(model, modifiers)
    trained = model.trainable_variables
    task_loss_weight = math.prod(m.task_loss_weight for m in modifiers)
    radius = max((m.sharpness_radius for m in modifiers), default=0.0)
    observers = [m.input_gradient for m in modifiers if m.input_gradient is not None]

    def at(x: tf.Tensor, y: tf.Tensor, draw: tf.Tensor, moves: _Pairs) -> _Found:
        with tf.GradientTape() as tape:
            if observers:
                tape.watch(x)
            moved = [(weight, weight.value + move) for weight, move in moves]
            draws = tf.stack([(seed + 104729) % 2**31, draw])
            logits, taps, added_losses = forward(x, draws, moved)
            task_loss = task.average(task.losses(y, logits), y)
            loss = task_loss if task_loss_weight == 1.0 else task_loss_weight * task_loss
            with keras.StatelessScope(state_mapping=moved) if moved else nullcontext():
                for index, modifier in enumerate(modifiers):
                    if modifier.extra_loss is not None:
                        seeds = tf.stack([(seed + 15485863 + 7919 * index) % 2**31, draw])
                        loss += modifier.extra_loss(Forward(x, y, logits, taps[index], seeds))
            if added_losses:
                loss += tf.add_n(added_losses)
            scaled = optimizer.scale_loss(loss / replicas if replicas > 1 else loss)
        sources = [*(v.value for v in variables), *([x] if observers else [])]
        return tape.gradient(scaled, sources), loss, logits

    def found(x: tf.Tensor, y: tf.Tensor, draw: tf.Tensor) -> _Found:
        gradients, loss, logits = at(x, y, draw, [])
        if radius:
            pairs = [(w, g) for w, g in zip(trained, gradients, strict=False) if g is not None]
            length = radius / (tf.linalg.global_norm([g for _, g in pairs]) + 1e-12)
            gradients, _, _ = at(x, y, draw, [(w, length * g) for w, g in pairs])
        for observe in observers:
            observe(gradients[-1])
        return gradients[: len(variables)], loss, logits

    return found


def _forward(
    model: keras.Model, modifiers: Sequence[Modifier]
) -> Callable[[tf.Tensor, tf.Tensor, _Pairs], _Computed]:
    """(x, seed, moved) -> logits in training, the taps of each modifier, the losses layers add.

    Weights that are moved, or that a modifier substitutes, take effect through Keras' stateless
    scope, which works for every layer. What the layers would have assigned in it, as moving
    statistics, is assigned after it, unless weights are moved: that pass is an excursion.
    """
    substitutes = [m.substitute for m in modifiers if m.substitute is not None]
    tapped = _with_taps(model, modifiers)

    def computed(outputs: Any, losses: list[tf.Tensor]) -> _Computed:
        flat = [tf.cast(output, tf.float32) for output in tf.nest.flatten(outputs)]
        logits, rest = flat[0], iter(flat[1:])
        taps = [tuple(next(rest) for _ in modifier.taps) for modifier in modifiers]
        return logits, taps, losses

    def substituted(seed: tf.Tensor) -> _Pairs:
        pairs = [
            pair
            for index, substitute in enumerate(substitutes)
            for pair in substitute(seed + tf.constant([7919 * index, 0]))
        ]
        if len({id(variable) for variable, _ in pairs}) < len(pairs):
            names = ", ".join(m.name for m in modifiers if m.substitute is not None)
            raise InputError(f"Several steps put their own tensor in place of one weight: {names}")
        return pairs

    def forward(x: tf.Tensor, seed: tf.Tensor, moved: _Pairs) -> _Computed:
        if not substitutes and not moved:
            outputs = tapped(x, training=True)
            return computed(outputs, tapped.losses)
        # A substitute is made of the moved weight; the later of two values of a weight counts.
        with keras.StatelessScope(state_mapping=moved):
            pairs = substituted(seed)
            trained = model.trainable_variables
            penalties = [v.regularizer(v.value) for v in trained if v.regularizer is not None]
        with keras.StatelessScope(state_mapping=[*moved, *pairs], collect_losses=True) as scope:
            outputs = tapped(x, training=True)
        if not moved:
            for variable in model.non_trainable_variables:
                value = scope.get_current_value(variable)
                if value is not None:
                    variable.assign(value)
        return computed(outputs, [*penalties, *scope.losses])

    return forward


def _with_taps(model: keras.Model, modifiers: Sequence[Modifier]) -> keras.Model:
    """The model of [final logits, taps of the modifiers in their order]."""
    taps = [tap for modifier in modifiers for tap in modifier.taps]
    if not taps and len(model.outputs) == 1:
        return model
    (only_input,) = model.inputs
    return keras.Model(only_input, [model.outputs[-1], *taps])
