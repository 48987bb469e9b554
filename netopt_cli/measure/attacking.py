"""What is left of a network's accuracy under attack, and whether the attack is to be believed.

A network can bend its loss so that gradients lead nowhere, which looks like robustness and is none
(gradient masking: Athalye et al., 2018; the checks are those of Carlini et al., 2019).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.graph.attacks import Ball, ascend, cross_entropy_to, logits_of

_BATCH = 250
_MORE_STEPS = 4
_NOISE = 0.02
"""Accuracy that an attack from another random point may differ by."""
_BROKEN = 0.05
_BLIND = 0.05


@dataclass(frozen=True)
class Samples:
    """What is attacked: x float32 (n, *shape), normalized; y int (n,)."""

    x: np.ndarray
    y: np.ndarray

    def first(self, count: int) -> Samples:
        return Samples(self.x[:count], self.y[:count])


@dataclass(frozen=True)
class Attacked:
    """What an attack has left.

    Attributes:
        x: (n, *shape) the attacked samples, the most harmful of all restarts.
        correct: Bool (n,): whether the network still classifies each one right.
        loss: Mean cross-entropy (nats).
    """

    x: np.ndarray
    correct: np.ndarray
    loss: float

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())


@dataclass(frozen=True)
class Attack:
    """Steps uphill from the sample, or with restarts from random points: see `graph.attacks`.

    Attributes:
        step_size: As a fraction of the range of the data.
        restarts: From random points; 0 is once, from the sample itself.
    """

    ball: Ball
    steps: int
    step_size: float
    restarts: int

    def __call__(self, model: keras.Model, samples: Samples, seed: int) -> Attacked:
        """Attacks the Keras model; the worst restart counts for each sample."""

        @tf.function(reduce_retracing=True)
        def attack(x: tf.Tensor, labels: tf.Tensor, draw: tf.Tensor) -> tuple[tf.Tensor, ...]:
            start = self.ball.random_point(x, draw) if self.restarts else x
            y = tf.one_hot(labels, model.outputs[-1].shape[-1])
            moved = ascend(
                cross_entropy_to(model, y),
                x,
                start,
                self.ball,
                step_size=self.step_size,
                steps=self.steps,
            )
            return moved, *_judged(model, moved, labels)

        parts = []
        for number, start in enumerate(range(0, len(samples.y), _BATCH)):
            x, y = samples.x[start : start + _BATCH], samples.y[start : start + _BATCH]
            worst = None
            for restart in range(max(1, self.restarts)):
                draw = tf.constant([seed, 7919 * number + restart])
                found = [result.numpy() for result in attack(x, y, draw)]
                worst = found if worst is None else _worse(worst, found)
            parts.append(worst)
        x, correct, loss = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Attacked(x, correct, float(loss.mean()))


def unattacked(model: keras.Model, samples: Samples) -> Attacked:
    """The samples as they are."""
    judged = tf.function(_judged, reduce_retracing=True)
    parts = [
        [
            each.numpy()
            for each in judged(model, samples.x[i : i + _BATCH], samples.y[i : i + _BATCH])
        ]
        for i in range(0, len(samples.y), _BATCH)
    ]
    correct, loss = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Attacked(samples.x, correct, float(loss.mean()))


def _judged(model: keras.Model, x: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether each sample is classified right, and its cross-entropy."""
    logits = logits_of(model, x)
    correct = tf.argmax(logits, axis=-1, output_type=tf.int32) == labels
    return correct, tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def _worse(first: list[np.ndarray], second: list[np.ndarray]) -> list[np.ndarray]:
    """Sample by sample the one that fools the network, or else raises its loss more."""
    fools = first[1].astype(int) - second[1].astype(int)  # 1 where only the second one does
    takes = (fools > 0) | ((fools == 0) & (second[2] > first[2]))
    wide = takes.reshape(-1, *[1] * (first[0].ndim - 1))
    return [
        np.where(wide, second[0], first[0]),
        np.where(takes, second[1], first[1]),
        np.where(takes, second[2], first[2]),
    ]


@dataclass(frozen=True)
class Check:
    """One sanity check of an attack.

    Attributes:
        name: What must hold.
        passed: Whether it does.
        found: The figures, for the user.
    """

    name: str
    passed: bool
    found: str


def check_attacks(
    model: keras.Model,
    samples: Samples,
    attack: Attack,
    *,
    clean: Attacked,
    fgsm: Attacked,
    pgd: Attacked,
    checked: int,
    seed: int,
) -> list[Check]:
    """Looks for the signs of gradient masking.

    Args:
        attack: The one that gave `pgd`.
        checked: Samples that the further attacks are tried on: one with four times the steps, and
            one without bounds.
    """
    few = samples.first(checked)
    before = float(pgd.correct[:checked].mean())
    steps = _MORE_STEPS * attack.steps
    longer = replace(attack, steps=steps)(model, few, seed + 1)
    everything = replace(attack.ball, epsilon=1.0)
    unbounded = Attack(everything, steps, 2.5 / steps, restarts=1)(model, few, seed + 2)
    blind = _share_without_gradient(model, few)
    return [
        Check(
            "the loss rises under attack",
            clean.loss < fgsm.loss and clean.loss < pgd.loss,
            f"clean {clean.loss:.3g}, FGSM {fgsm.loss:.3g}, PGD {pgd.loss:.3g}",
        ),
        Check(
            "PGD is not weaker than FGSM",
            pgd.accuracy <= fgsm.accuracy + _NOISE,
            f"PGD leaves {pgd.accuracy:.1%}, FGSM {fgsm.accuracy:.1%}",
        ),
        Check(
            "more steps are not weaker",
            longer.accuracy <= before + _NOISE,
            f"{attack.steps} steps leave {before:.1%}, {steps} {longer.accuracy:.1%}",
        ),
        Check(
            "without bounds nothing is left",
            unbounded.accuracy <= _BROKEN,
            f"an attack over the whole range leaves {unbounded.accuracy:.1%}",
        ),
        Check(
            "gradients reach the input",
            blind <= _BLIND,
            f"of {blind:.1%} of the samples the gradient is zero",
        ),
    ]


def _share_without_gradient(model: keras.Model, samples: Samples) -> float:
    """Of the samples, those whose loss has no slope anywhere: an attack cannot begin there."""
    x = tf.constant(samples.x)
    y = tf.one_hot(samples.y, model.outputs[-1].shape[-1])
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        loss = cross_entropy_to(model, y)(x)
    gradient = tape.gradient(loss, x, unconnected_gradients="zero").numpy()
    return float(np.mean(~gradient.reshape(len(gradient), -1).any(axis=1)))
