"""Recurrent networks that take as many steps as an input needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf
from pydantic import Field

from netopt_cli.contracts import Context, Forward, Modifier, Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.adaptive_time import AdaptiveRNN, can_adapt, with_adaptive_time
from netopt_cli.graph.rebuild import layers

_BATCH = 256


@dataclass(frozen=True)
class AdaptiveTime:
    """Gives recurrent layers adaptive computation time and trains on (Graves, 2016).

    loss = task + ponder_cost · (N + R), the mean over layers, samples and inputs of the steps and
    of what the last one had left to halt with. The cells start with the weights that they have, and
    the last epoch counts: one chosen by its accuracy may be from before steps became fewer.

    `macs` of a file that is a loop are those of the most steps.

    Attributes:
        max_steps: For one input.
        ponder_cost: Price of a step: Graves' time penalty. Halting units are slow to learn; a step
            less takes some hundred updates at a rate of 0.01 or more.
        loop: Whether the file is a loop that ends early. If not it always takes the most steps, but
            can be int8. Layers that give all their outputs are never loops.
        epochs: Epochs of the stage.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    max_steps: Annotated[int, Field(ge=2)] = 4
    ponder_cost: Annotated[float, Field(ge=0)] = 0.1
    loop: bool = True
    epochs: Annotated[int, Field(ge=1)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        model = self._rewritten(network.model)
        found = [layer for layer in layers(model) if isinstance(layer, AdaptiveRNN)]
        costs = tuple(layer.output[1] for layer in found)

        def extra_loss(step: Forward) -> tf.Tensor:
            return self.ponder_cost * tf.add_n([tf.reduce_mean(c) for c in step.taps]) / len(costs)

        network = context.fit(
            replace(network, model=model),
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            modifiers=[
                Modifier("ponder cost", extra_loss=extra_loss, taps=costs, settles_at=1.0),
            ],
        )
        for layer, steps in zip(found, _steps(network.model, found, context), strict=True):
            context.note(
                f"{layer.name}: {steps.mean():.2f} steps an input on validation (samples "
                f"{steps.min():.2f} to {steps.max():.2f}, at most {self.max_steps})"
            )
        return network

    def plan(self, preflight: Preflight) -> Network:
        return replace(preflight.network, model=self._rewritten(preflight.network.model))

    def _rewritten(self, model: keras.Model) -> keras.Model:
        chosen = [layer for layer in layers(model) if can_adapt(layer)]
        if not chosen:
            raise InputError(
                "opt.adaptive_time needs a SimpleRNN, LSTM or GRU that runs forwards; the model "
                f"'{model.name}' has none. arch=rnn has"
            )
        return with_adaptive_time(model, chosen, self.max_steps, loop=self.loop)


def _steps(model: keras.Model, found: list[AdaptiveRNN], context: Context) -> list[np.ndarray]:
    """For each layer, the mean steps of each validation sample."""
    counted = keras.Model(model.inputs, [layer.output[2] for layer in found])
    parts = [
        keras.tree.flatten(counted(x, training=False))
        for x, _ in context.data.normalized_batches(context.data.validation, _BATCH)
        if len(x) > 1
    ]
    return [np.concatenate([part[i].numpy() for part in parts]) for i in range(len(found))]
