"""Recurrent layers that take as many steps for each input as it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from netopt_cli.graph.rebuild import layers, rebuild

_EPSILON = 0.01
"""A step may be the last one when what is left to halt with is no more than this."""

_RECURRENT = (keras.layers.SimpleRNN, keras.layers.LSTM, keras.layers.GRU)


@keras.saving.register_keras_serializable(package="netopt")
class AdaptiveRNN(keras.layers.Layer):
    """A recurrent layer with adaptive computation time (Graves, 2016, arXiv:1603.08983).

    For each input the cell is stepped until its halting probabilities add up to 1; output and state
    are the means of the steps', weighted by them. A trained vector is added to the input from the
    second step on, in the place of Graves' flag.

    Outputs, of an input (batch, time, features): the last output (batch, units), or all of them
    (batch, time, units); the ponder cost N + R (batch,) and the steps N (batch,), means over time.

    Args:
        cell: A cell of Keras.
        max_steps: For one input.
        loop: Whether the exported file (batch 1) is a loop that ends when it may. If not, and with
            `return_sequences`, it always takes the most steps, laid out in the graph.
        return_sequences: Whether all outputs are returned.
    """

    def __init__(
        self,
        cell: keras.layers.Layer,
        *,
        max_steps: int,
        loop: bool = True,
        return_sequences: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cell = cell
        self.max_steps = max_steps
        self.loop = loop
        self.return_sequences = return_sequences

    @property
    def netopt_integer_refusal(self) -> str | None:
        if not self.loop or self.return_sequences:
            return None
        return "is a loop, which cannot be calibrated: build it with loop=false"

    def build(self, input_shape: Any) -> None:
        if not self.cell.built:
            self.cell.build((None, input_shape[-1]))
        self.later = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="later")
        units = self.cell.units
        self.halt = self.add_weight(shape=(units, 1), initializer="zeros", name="halt")
        # As Graves has it: few steps at first.
        self.halt_bias = self.add_weight(shape=(1,), initializer="ones", name="halt_bias")

    def call(self, x: Any, training: bool = False) -> tuple[Any, Any, Any]:
        if self.loop and not self.return_sequences and not training and x.shape[0] == 1:
            return self._looped(x)
        states = self._zeros(tf.shape(x)[0])
        outputs, costs, counts = [], [], []
        for t in range(x.shape[1]):
            output, states, steps, rest = self._ponder(x[:, t], states)
            outputs.append(output)
            costs.append(steps + rest)
            counts.append(steps)
        y = tf.stack(outputs, 1) if self.return_sequences else outputs[-1]
        return y, tf.add_n(costs)[:, 0] / len(costs), tf.add_n(counts)[:, 0] / len(counts)

    def _ponder(self, x: Any, states: list[Any]) -> tuple[Any, list[Any], Any, Any]:
        """One input: (batch, features) -> output, states, steps and rest, both (batch, 1)."""
        running = tf.ones_like(x[:, :1])
        halted = steps = rest = tf.zeros_like(running)
        mean = [tf.zeros_like(state) for state in states]
        mean_output = 0.0
        for number in range(self.max_steps):
            output, states, probability = self._step(x, states, float(number > 0))
            left = 1.0 - halted
            is_last = number == self.max_steps - 1
            may_end = tf.cast(halted + probability >= 1.0 - _EPSILON, x.dtype)
            ends = running if is_last else running * may_end
            share = ends * left + (running - ends) * probability
            mean_output += share * output
            mean = [total + share * state for total, state in zip(mean, states, strict=True)]
            steps += running
            rest += ends * left
            halted += (running - ends) * probability
            running -= ends
        return mean_output, mean, steps, rest

    def _looped(self, x: Any) -> tuple[Any, Any, Any]:
        """The same for one sample, as one loop over all steps of all inputs."""
        length, count = x.shape[1], len(self._zeros(1))

        def body(*loop: Any) -> tuple[Any, ...]:
            t, number, halted, cost, total, output, *rest = loop
            states, mean = list(rest[:count]), rest[count:]
            later = tf.cast(number > 0, x.dtype)
            new_output, new, probability = self._step(tf.gather(x[0], t)[None], states, later)
            ends = tf.logical_or(
                halted + probability >= 1.0 - _EPSILON, number >= self.max_steps - 1
            )
            share = tf.where(ends, 1.0 - halted, probability)
            total += share * new_output
            means = [old + share * state for old, state in zip(mean, new, strict=True)]
            going = 1.0 - tf.cast(ends, x.dtype)
            ended = tf.cast(ends[0, 0], tf.int32)
            return (
                t + ended,
                (number + 1) * (1 - ended),
                going * (halted + probability),
                cost + tf.where(ends, 2.0 - halted, tf.ones_like(halted)),
                going * total,
                tf.where(ends, total, output),
                *[tf.where(ends, m, s) for m, s in zip(means, new, strict=True)],
                *[going * m for m in means],
            )

        zeros = self._zeros(1)
        empty = tf.zeros((1, self.cell.units), x.dtype)
        one = tf.zeros((1, 1), x.dtype)
        start = (tf.constant(0), tf.constant(0), one, one, empty, empty, *zeros, *zeros)
        end = tf.while_loop(
            lambda t, *rest: t < length, body, start, maximum_iterations=length * self.max_steps
        )
        cost = end[3][:, 0] / length
        return end[5], cost, cost

    def _step(self, x: Any, states: list[Any], later: Any) -> tuple[Any, list[Any], Any]:
        output, states = self.cell(x + later * self.later.value, states)
        logit = output @ tf.cast(self.halt.value, output.dtype) + self.halt_bias.value
        return output, list(states), tf.sigmoid(logit)

    def _zeros(self, batch: Any) -> list[Any]:
        sizes = keras.tree.flatten(self.cell.state_size)
        return [tf.zeros((batch, size), self.compute_dtype) for size in sizes]

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, time = input_shape[:2]
        units = self.cell.units
        y = (batch, time, units) if self.return_sequences else (batch, units)
        return y, (batch,), (batch,)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "cell": keras.saving.serialize_keras_object(self.cell),
            "max_steps": self.max_steps,
            "loop": self.loop,
            "return_sequences": self.return_sequences,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> AdaptiveRNN:
        cell = keras.saving.deserialize_keras_object(config["cell"])
        return cls(**{**config, "cell": cell})


def can_adapt(layer: keras.Layer) -> bool:
    """Whether a layer is a recurrent one of Keras, forwards, and gives its outputs alone."""
    return type(layer) in _RECURRENT and not (
        layer.go_backwards or layer.stateful or layer.return_state
    )


def with_adaptive_time(
    model: keras.Model, chosen: Sequence[keras.Layer], max_steps: int, *, loop: bool
) -> keras.Model:
    """Puts an `AdaptiveRNN` of the same name and cell in the place of recurrent layers."""
    ids = {id(layer) for layer in chosen}

    def clone(layer: keras.Layer) -> keras.Layer | None:
        if id(layer) not in ids:
            return None
        cell = type(layer.cell).from_config(layer.cell.get_config())
        return AdaptiveRNN(
            cell, max_steps=max_steps, loop=loop, name=layer.name,
            return_sequences=layer.return_sequences,
        )  # fmt: skip

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if id(layer) not in ids:
            return new_layer(*args, **kwargs)
        return new_layer(args[0])[0]

    rebuilt, _ = rebuild(model, clone=clone, call=call)
    by_name = {layer.name: layer for layer in chosen}
    for layer in layers(rebuilt):
        if isinstance(layer, AdaptiveRNN) and layer.name in by_name:
            layer.cell.set_weights(by_name[layer.name].get_weights())
    return rebuilt
