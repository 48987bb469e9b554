"""Importances that are learned with the weights: movement, hard-concrete gates, weight noise.

While they are learned, something stands for each weight in the forward pass of training; in the
end, scores say which weights matter. Each is a `Learned`; `learning` makes the modifier of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.contracts import Modifier
from netopt_cli.graph.masks import Masks

SPEED = 30.0
"""Logarithms are trained as SPEED times a variable: an adaptive optimizer moves a variable by about
its learning rate a step, whatever its gradient, and they have a far longer way to go than weights.
"""


class Learned(Protocol):
    """What learns how much each of some weights matters."""

    @property
    def variables(self) -> Sequence[keras.Variable]:
        """One for each weight, of its shape."""
        ...

    def stand_in(self, index: int, mask: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """What stands for a weight in training, in the graph."""
        ...

    def penalty(self) -> tf.Tensor:
        """What is added to the loss, in the graph."""
        ...

    def scores(self) -> list[np.ndarray]:
        """The higher, the more important; only the order counts."""
        ...

    def settle(self) -> None:
        """Makes the weights those that count without what stood for them."""
        ...

    def summary(self) -> str:
        """What was learned, in a line."""
        ...


def learning(
    learned: Learned,
    weights: Sequence[keras.Variable],
    masks: Masks,
) -> Modifier:
    """Returns the modifier of a training in which importances are learned under masks.

    The training ends with the weights of its last epoch, which the importances belong to.
    """

    def substitute(seed: tf.Tensor) -> list[tuple[keras.Variable, tf.Tensor]]:
        return [
            (weight, learned.stand_in(i, tf.convert_to_tensor(mask), seed + tf.constant([i, 0])))
            for i, (weight, mask) in enumerate(zip(weights, masks.variables, strict=True))
        ]

    return Modifier(
        "learn importance",
        variables=tuple(learned.variables),
        substitute=substitute,
        extra_loss=lambda step: learned.penalty(),
        settles_at=1.0,
    )


class Movement:
    """Scores that grow where training moves a weight away from zero (Sanh et al., 2020).

    In the forward pass the mask multiplies the weight; the gradient goes straight through to the
    score, also where the mask is 0, so that weights can come back.
    """

    SCALE = 1e-6
    """Makes gradients of scores small beside Adam's epsilon, which then divides all of them alike:
    scores add up as under SGD. Normalized, seldom used weights would count as much as others.
    """

    def __init__(self, weights: Sequence[keras.Variable]) -> None:
        self._weights = weights
        self.variables = _variables("movement", weights)

    def stand_in(self, index: int, mask: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        score = tf.convert_to_tensor(self.variables[index].value)
        return self._weights[index].value * (mask + self.SCALE * (score - tf.stop_gradient(score)))

    def penalty(self) -> tf.Tensor:
        return tf.constant(0.0)

    def scores(self) -> list[np.ndarray]:
        return [score.numpy() for score in self.variables]

    def settle(self) -> None:
        """The weights are what they are."""

    def summary(self) -> str:
        return f"{_share(s > 0 for s in self.scores()):.1%} of the weights moved away from zero"


class HardConcrete:
    """A stochastic gate for each weight, pushed shut by an L0 penalty (Louizos et al., 2018).

    The penalty is the expected number of open gates in excess of those that are to stay: it rests
    where the wanted sparsity is reached. In the end the gates of inference go into the weights.
    """

    TEMPERATURE = 2 / 3
    LOW, HIGH = -0.1, 1.1
    """The interval that gates are stretched to before they are cut to [0, 1]."""
    START = 2.0
    """Log alpha at the start: a trained network begins with nearly open gates."""

    def __init__(
        self, weights: Sequence[keras.Variable], *, sparsity: float, factor: float
    ) -> None:
        self._weights = weights
        self._wanted = (1.0 - sparsity) * sum(math.prod(weight.shape) for weight in weights)
        self._factor = factor
        self.variables = _variables("log_alpha", weights)

    def stand_in(self, index: int, mask: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        log_alpha = self._log_alpha(self.variables[index].value)
        noise = tf.random.stateless_uniform(log_alpha.shape, seed, minval=1e-6, maxval=1 - 1e-6)
        logit = tf.math.log(noise) - tf.math.log1p(-noise)
        gate = tf.sigmoid((logit + log_alpha) / self.TEMPERATURE)
        gate = tf.clip_by_value(gate * (self.HIGH - self.LOW) + self.LOW, 0.0, 1.0)
        return self._weights[index].value * mask * gate

    def penalty(self) -> tf.Tensor:
        shift = self.TEMPERATURE * math.log(-self.LOW / self.HIGH)
        open_gates = tf.add_n(
            [
                tf.reduce_sum(tf.sigmoid(self._log_alpha(variable.value) - shift))
                for variable in self.variables
            ]
        )
        return self._factor * tf.nn.relu(open_gates - self._wanted)

    def scores(self) -> list[np.ndarray]:
        return [self._log_alpha(variable.numpy()) for variable in self.variables]

    def settle(self) -> None:
        for weight, gate in zip(self._weights, self._gates(), strict=True):
            weight.assign(weight * gate)

    def summary(self) -> str:
        return f"{_share(gate == 0 for gate in self._gates()):.1%} of the gates are shut"

    def _log_alpha(self, variable: Any) -> Any:
        return self.START + SPEED * variable

    def _gates(self) -> list[np.ndarray]:
        """The gates of inference, without noise."""
        opened = [1.0 / (1.0 + np.exp(-log_alpha)) for log_alpha in self.scores()]
        return [np.clip(s * (self.HIGH - self.LOW) + self.LOW, 0.0, 1.0) for s in opened]


class WeightNoise:
    """Gaussian noise of a learned size on each weight: sparse variational dropout.

    The noise is additive, its sigma trained beside the weight w, and log alpha = log(sigma² / w²)
    tells how little the weight matters (Molchanov et al., 2017). The penalty is the KL divergence
    to the log-uniform prior; its factor is 1 / training samples in the paper.
    """

    START = -2.0
    """Log sigma at the start, beside that of the root mean square of the layer's weights."""
    THRESHOLD = 3.0
    """Log alpha beyond which the paper removes a weight."""

    def __init__(self, weights: Sequence[keras.Variable], *, factor: float) -> None:
        self._weights = weights
        self._factor = factor
        squares = [float(np.mean(np.square(weight.numpy()))) for weight in weights]
        self._starts = [self.START + 0.5 * math.log(square + 1e-12) for square in squares]
        self.variables = _variables("log_sigma", weights)

    def stand_in(self, index: int, mask: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        log_sigma = self._log_sigma(index, self.variables[index].value)
        noise = tf.random.stateless_normal(log_sigma.shape, seed)
        return mask * (self._weights[index].value + tf.exp(log_sigma) * noise)

    def penalty(self) -> tf.Tensor:
        divergence = tf.constant(0.0)
        for index, (weight, variable) in enumerate(zip(self._weights, self.variables, strict=True)):
            log_alpha = 2.0 * self._log_sigma(index, variable.value) - tf.math.log(
                tf.square(weight.value) + 1e-12
            )
            # The approximation of equation 14.
            negative = 0.63576 * (tf.sigmoid(1.87320 + 1.48695 * log_alpha) - 1.0)
            divergence -= tf.reduce_sum(negative - 0.5 * tf.nn.softplus(-log_alpha))
        return self._factor * divergence

    def scores(self) -> list[np.ndarray]:
        return [
            np.log(np.square(weight.numpy()) + 1e-12) - 2.0 * self._log_sigma(i, variable.numpy())
            for i, (weight, variable) in enumerate(zip(self._weights, self.variables, strict=True))
        ]

    def settle(self) -> None:
        """The weights are the means of their distributions already."""

    def summary(self) -> str:
        noisy = _share(-score > self.THRESHOLD for score in self.scores())
        return f"{noisy:.1%} of the weights have a log alpha above {self.THRESHOLD:g}"

    def _log_sigma(self, index: int, variable: Any) -> Any:
        return self._starts[index] + SPEED * variable


def _variables(name: str, weights: Sequence[keras.Variable]) -> list[keras.Variable]:
    return [
        keras.Variable(np.zeros(tuple(w.shape), np.float32), name=f"{name}_{index}")
        for index, w in enumerate(weights)
    ]


def _share(arrays: Iterable[np.ndarray]) -> float:
    """The part of all elements that is true."""
    return float(np.mean(np.concatenate([array.ravel() for array in arrays])))
