"""How a network is trained: the parameters of the `train` group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from netopt_cli.errors import ConfigError

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one training.

    Attributes:
        optimizer: The update rule.
        learning_rate: Highest learning rate of the schedule.
        schedule: `constant`, `cosine` (to 0) or `step` (times `step_factor` at each of `step_at`).
        warmup_fraction: Fraction of the steps in which the rate grows linearly from 0.
        step_at: Fractions of the training at which `step` lowers the rate.
        step_factor: What `step` multiplies the rate with.
        momentum: Of `sgd`.
        nesterov: Whether `sgd` looks ahead.
        weight_decay: Decoupled decay, times the learning rate; biases and norms are left out
            (Loshchilov and Hutter, 2019).
        epochs: Passes over the training split; 0 takes the network as the arch gives it, for one
            that was loaded.
        batch_size: Samples an update, over all replicas. The last incomplete batch of an epoch is
            left out; the order is drawn anew each epoch.
        clip_norm: Largest global norm of the gradient.
        early_stopping_epochs: Stops after so many epochs without a better validation accuracy.
        best_weights: Ends with the weights of the epoch that was best on validation.
        mixed_precision: `bfloat16` or `float16` computation over float32 weights; the network
            that is kept and exported is float32.
        steps_per_call: Steps that one call of the compiled function takes.
    """

    optimizer: Literal["sgd", "adam", "adamw", "rmsprop", "adagrad"] = "adam"
    learning_rate: Positive = 1e-3
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    warmup_fraction: Fraction = 0.0
    step_at: tuple[Fraction, ...] = (0.5, 0.75)
    step_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NotNegative = 0.0
    epochs: Annotated[int, Field(ge=0)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 64
    clip_norm: Positive | None = None
    early_stopping_epochs: Annotated[int, Field(ge=1)] | None = None
    best_weights: bool = True
    mixed_precision: Literal["none", "bfloat16", "float16"] = "none"
    steps_per_call: Annotated[int, Field(ge=1)] = 50

    def __post_init__(self) -> None:
        if list(self.step_at) != sorted(self.step_at):
            raise ConfigError(f"train.step_at must be increasing. Received: {list(self.step_at)}")
        if self.nesterov and self.optimizer != "sgd":
            raise ConfigError(
                "train.nesterov works with train.optimizer=sgd alone. "
                f"Received: train.optimizer={self.optimizer}"
            )
