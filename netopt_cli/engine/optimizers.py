"""Optimizers and learning-rate schedules made from `TrainSettings`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from netopt_cli.contracts import Modifier
from netopt_cli.engine.settings import TrainSettings


@keras.saving.register_keras_serializable(package="netopt")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate as a function of the step: linear warm-up, then constant, cosine or steps.

    Own code since `keras.optimizers.schedules` has warm-up for the cosine alone.
    """

    def __init__(
        self,
        kind: str,
        peak: float,
        total_steps: int,
        *,
        warmup_steps: int = 0,
        step_at: tuple[float, ...] = (),
        step_factor: float = 0.1,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.step_at = tuple(step_at)
        self.step_factor = step_factor

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        warmup = ops.minimum(1.0, (step + 1.0) / max(1, self.warmup_steps))
        if self.kind == "cosine":
            steps_after_warmup = max(1, self.total_steps - self.warmup_steps)
            progress = ops.clip((step - self.warmup_steps) / steps_after_warmup, 0.0, 1.0)
            shape = 0.5 * (1.0 + ops.cos(math.pi * progress))
        elif self.kind == "step":
            passed = [ops.cast(step >= at * self.total_steps, "float32") for at in self.step_at]
            shape = ops.power(self.step_factor, sum(passed)) if passed else 1.0
        else:
            shape = 1.0
        return self.peak * warmup * shape

    def get_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "step_at": self.step_at,
            "step_factor": self.step_factor,
        }


def make_optimizer(
    settings: TrainSettings,
    model: keras.Model,
    total_steps: int,
    modifiers: Sequence[Modifier] = (),
) -> keras.optimizers.Optimizer:
    """Returns the optimizer with its slots built; call it in the strategy's scope.

    Args:
        modifiers: What it trains for them besides the model; see `Modifier` for the weight decay.
    """
    rate = Schedule(
        settings.schedule,
        settings.learning_rate,
        total_steps,
        warmup_steps=int(settings.warmup_fraction * total_steps),
        step_at=settings.step_at,
        step_factor=settings.step_factor,
    )
    decay = settings.weight_decay or None
    if settings.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            rate, momentum=settings.momentum, nesterov=settings.nesterov, weight_decay=decay
        )
    elif settings.optimizer == "rmsprop":
        optimizer = keras.optimizers.RMSprop(rate, weight_decay=decay)
    elif settings.optimizer == "adagrad":
        optimizer = keras.optimizers.Adagrad(rate, weight_decay=decay)
    elif settings.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay)
    else:
        optimizer = keras.optimizers.Adam(rate, weight_decay=decay)
    trained = [*model.trainable_variables, *(v for m in modifiers for v in m.trained)]
    undecayed = [v for m in modifiers for v in m.variables]
    undecayed += [v for v in trained if len(v.shape) < 2]
    optimizer.exclude_from_weight_decay(var_list=undecayed)
    if settings.mixed_precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(trained)
    return optimizer
