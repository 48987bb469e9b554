"""Adversarial training: on samples that an attack has moved to where the network does worst."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import keras
import tensorflow as tf
from pydantic import Field

from netopt_cli.contracts import Context, Forward, Keep, Modifier, Network, Preflight
from netopt_cli.dataset import Dataset
from netopt_cli.graph.attacks import (
    Ball,
    ascend,
    ball_of,
    check_epsilon,
    cross_entropy_to,
    logits_of,
    raw_range,
)
from netopt_cli.graph.free_training import FreeTraining
from netopt_cli.starting import Start, refuse_late_scratch, started
from netopt_cli.suitability import needs_classes, needs_values

Count = Annotated[int, Field(ge=1)]

_SETTLES_AT = 0.75
"""Validation sees clean samples alone, which an early epoch may do better on, being less robust."""
_FAST_STEP = 1.25
"""FGSM from a random point needs a step larger than ε to get anywhere (Wong et al., 2020)."""
_SMALL_START = 0.001
"""Deviation, as a fraction of the range, of where TRADES begins: at the sample its loss is flat."""


@dataclass(frozen=True)
class Adversarial:
    """Trains against attacks within ε of each sample (the L-infinity norm).

    Methods:
        `fgsm`: one step (Goodfellow et al., 2015); can be fooled by a network that bends its loss
        so that one step misses, which the robustness table shows. `pgd`: several (Madry et al.,
        2018). `free`: each batch is trained on `replays` times, and the gradient of each update
        moves the perturbation too, so that a step costs what a plain one does (Shafahi et al.,
        2019). `trades`: cross-entropy on the sample, and KL divergence to the prediction where
        that differs most (Zhang et al., 2019), which trades accuracy for robustness.

    Attacks are made on the network as at inference, and on the weights themselves, whatever a
    later stage puts in their place while it trains.

    Attributes:
        method: See above.
        epsilon: Fraction of the range of the data (of 255 for bytes, of the range of the training
            split for floats), whatever the normalization.
        steps: Of `pgd` and `trades`; a training step costs so many more.
        step_size: As a fraction of the range; None is 2.5 ε / steps, for `fgsm` 1.25 ε, or ε
            without a random start. `free` always moves by ε.
        random_start: Whether `fgsm` and `pgd` begin at a random point of the ball.
        replays: Of `free`: each batch counts so many times, and as many fewer are seen.
        trades_weight: Of `trades`: factor of the divergence, 1 / λ in the paper.
        keep: Whether later stages go on training like this, as their attacks are what robustness
            needs; each of their steps costs as much more.
        start: `scratch` from new weights, `current` from those there are; `auto` is `scratch` for
            the first stage.
        epochs: Epochs of the stage; None is `train.epochs`, 0 leaves the training to later stages.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    method: Literal["fgsm", "pgd", "free", "trades"] = "pgd"
    epsilon: float = 0.1
    steps: Count = 7
    step_size: Annotated[float, Field(gt=0, le=1)] | None = None
    random_start: bool = True
    replays: Count = 4
    trades_weight: Annotated[float, Field(gt=0)] = 6.0
    keep: bool = True
    start: Start = "auto"
    epochs: Annotated[int, Field(ge=0)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        if self.epochs == 0 and not self.keep:
            raise ValueError(
                "epochs=0 leaves the training to later stages, which needs keep=true. "
                "Received: epochs=0, keep=false"
            )

    def __call__(self, network: Network, context: Context) -> Network:
        modifier = self._modifier_for(context.data)
        context.note(self._description(context.data))
        if self.epochs != 0:
            network, restart = started(network, context, self.start)
            network = context.fit(
                network,
                epochs=self.epochs or context.epochs,
                learning_rate=self.learning_rate,
                modifiers=[modifier(network.model)],
                restart=restart,
            )
        return replace(network, keeps=(*network.keeps, modifier)) if self.keep else network

    def unsuited(self, data: Dataset) -> str | None:
        return needs_classes(data) or needs_values(data)

    def plan(self, preflight: Preflight) -> Network:
        refuse_late_scratch(preflight, self.start)
        return preflight.network

    @property
    def _step_size(self) -> float:
        if self.step_size is not None:
            return self.step_size
        if self.method == "fgsm":
            return self.epsilon * (_FAST_STEP if self.random_start else 1.0)
        return 2.5 * self.epsilon / self.steps

    def _modifier_for(self, data: Dataset) -> Keep:
        """What trains a model against the attack: for this stage, and to be kept."""
        ball = ball_of(data, self.epsilon)
        if self.method == "free":
            size = (data.shape, data.classes, self.replays)
            return lambda model: self._free(FreeTraining(ball, *size))
        return partial(self._trades if self.method == "trades" else self._attacked, ball)

    def _free(self, training: FreeTraining) -> Modifier:
        return Modifier(
            "free",
            transform_batch=training.perturb,
            input_gradient=training.move,
            settles_at=_SETTLES_AT,
        )

    def _attacked(self, ball: Ball, model: keras.Model) -> Modifier:
        steps = 1 if self.method == "fgsm" else self.steps

        def transform(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            start = ball.random_point(x, seed) if self.random_start else x
            attack = cross_entropy_to(model, y)
            return ascend(attack, x, start, ball, step_size=self._step_size, steps=steps), y

        return Modifier(self.method, transform_batch=transform, settles_at=_SETTLES_AT)

    def _trades(self, ball: Ball, model: keras.Model) -> Modifier:
        def extra_loss(forward: Forward) -> tf.Tensor:
            x = forward.x
            clean = tf.stop_gradient(tf.nn.softmax(logits_of(model, x)))
            noise = tf.random.stateless_normal(tf.shape(x), forward.seed, stddev=_SMALL_START)
            start = ball.project(x + noise * ball.scale, x)
            # The entropy of the clean prediction is constant here: no part of the gradient.
            moved = ascend(
                cross_entropy_to(model, clean),
                x,
                start,
                ball,
                step_size=self._step_size,
                steps=self.steps,
            )
            return self.trades_weight * _divergence(
                forward.logits, logits_of(model, moved, training=True)
            )

        return Modifier("trades", extra_loss=extra_loss, settles_at=_SETTLES_AT)

    def _description(self, data: Dataset) -> str:
        low, high = raw_range(data)
        size = (
            f"attacks of ε = {self.epsilon:g} of the range {low:g} … {high:g}: "
            f"{self.epsilon * (high - low):g} in the values of the data"
        )
        if self.method == "free":
            return f"{self.method}: {size}, {self.replays} replays of each batch"
        steps = 1 if self.method == "fgsm" else self.steps
        return f"{self.method}: {size}, {steps} steps of {self._step_size:.4g}"


def _divergence(logits: tf.Tensor, moved: tf.Tensor) -> tf.Tensor:
    """Mean KL divergence of the prediction at the moved samples from that at the samples."""
    log_p, log_q = tf.nn.log_softmax(logits), tf.nn.log_softmax(moved)
    return tf.reduce_mean(tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1))
