"""Attacks on a network within a ball around each sample: what adversarial training trains against
and robustness is measured by.

Sizes are fractions of the range of the data, whatever normalization follows: for bytes 0.1 is 25.5
of 255, so that they are those of the literature, where pixels are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from netopt_cli.dataset import Dataset

LossOf = Callable[[tf.Tensor], tf.Tensor]
"""x float32 (batch, *shape), normalized -> what the attack raises, a scalar."""


@dataclass(frozen=True)
class Ball:
    """Where an attack may go: at most `epsilon` from the sample in every value (the L-infinity
    norm), and never out of the range of the data.

    Attributes:
        epsilon: Fraction of the range.
        scale: The whole range in normalized units, float32 () or (channels,).
        low, high: Its ends in normalized units.
    """

    epsilon: float
    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def radius(self) -> np.ndarray:
        """`epsilon` in normalized units."""
        return np.float32(self.epsilon) * self.scale

    def project(self, moved: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """The nearest point to `moved` in the ball around `x`."""
        near = tf.clip_by_value(moved, x - self.radius, x + self.radius)
        return tf.clip_by_value(near, self.low, self.high)

    def random_point(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """A point of the ball, drawn uniformly; seed int32 (2,)."""
        noise = tf.random.stateless_uniform(tf.shape(x), seed, minval=-1.0)
        return self.project(x + noise * self.radius, x)


def raw_range(data: Dataset) -> tuple[float, float]:
    """The least and the largest value of raw samples: of bytes 0 and 255, of floats what the
    training split has, over all channels."""
    if data.train.dtype == np.uint8:
        return 0.0, 255.0
    extremes = [(float(x.min()), float(x.max())) for x, _ in data.train.batches(1024)]
    return min(low for low, _ in extremes), max(high for _, high in extremes)


def ball_of(data: Dataset, epsilon: float) -> Ball:
    """The ball of a data set, in the units that its normalization gives.

    Raises:
        ValueError: See `check_epsilon`.
    """
    check_epsilon(epsilon)
    ends = [data.normalization.numpy(np.asarray(end)) for end in raw_range(data)]
    low, high = np.minimum(*ends), np.maximum(*ends)
    return Ball(epsilon, high - low, low, high)


def check_epsilon(epsilon: float) -> None:
    """Refuses an ε outside the range of the data.

    Raises:
        ValueError: With what the same ε would be for pixels of 0 … 255.
    """
    if not 0 < epsilon <= 1:
        as_pixels = (
            f" For pixels of 0 … 255 that would be epsilon={epsilon / 255:.4g}."
            if 1 < epsilon <= 255
            else ""
        )
        raise ValueError(
            "epsilon must be in (0, 1]: it is a fraction of the range of the data. "
            f"Received: epsilon={epsilon:g}.{as_pixels}"
        )


def ascend(
    loss_of: LossOf, x: tf.Tensor, start: tf.Tensor, ball: Ball, *, step_size: float, steps: int
) -> tf.Tensor:
    """Follows the sign of the gradient of `loss_of` uphill within the ball.

    One step of the size of ε from the sample itself is FGSM (Goodfellow et al., 2015); several
    smaller ones are PGD (Madry et al., 2018).

    Args:
        x: float32 (batch, *shape), normalized: the centres.
        start: Where it begins, like x.
        step_size: As a fraction of the range.

    Returns:
        Like x; no gradient flows through it.
    """
    stride = np.float32(step_size) * ball.scale

    def step(moved: tf.Tensor) -> tuple[tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(moved)
            loss = loss_of(moved)
        # A network may round its input, which has no gradient: then there is nowhere to go.
        gradient = tape.gradient(loss, moved, unconnected_gradients="zero")
        return (ball.project(moved + stride * tf.sign(gradient), x),)

    (moved,) = tf.while_loop(lambda _: True, step, (start,), maximum_iterations=steps)
    return tf.stop_gradient(moved)


def logits_of(model: keras.Model, x: tf.Tensor, *, training: bool = False) -> tf.Tensor:
    """float32 (batch, classes): the last of the model's outputs."""
    return tf.cast(tf.nest.flatten(model(x, training=training))[-1], tf.float32)


def cross_entropy_to(model: keras.Model, y: tf.Tensor) -> LossOf:
    """The sum over the batch of the cross-entropy to the distributions y (batch, classes).

    The network computes as at inference: an attack leaves its statistics alone.
    """

    def loss_of(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(y, logits_of(model, x)))

    return loss_of
