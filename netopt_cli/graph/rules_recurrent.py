"""Rules of recurrent layers, and of the wrappers that take a layer along time."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from netopt_cli.graph.labels import Ids, Labels
from netopt_cli.graph.rule_call import Call, NoRule, Rule, consumes, produces
from netopt_cli.graph.rules_dense import hold_unless_elementwise

_GATES = {
    keras.layers.SimpleRNN: 1,
    keras.layers.GRU: 3,
    keras.layers.LSTM: 4,
    keras.layers.ConvLSTM1D: 4,
    keras.layers.ConvLSTM2D: 4,
    keras.layers.ConvLSTM3D: 4,
}
_WRAPPED = ("layer", "config")


def recurrent(call: Call) -> list[Labels]:
    units = _recurrent(call)
    return [Labels.fixed(shape).with_axis(-1, units) for shape in call.shapes]


def _recurrent(call: Call, key: str = "units") -> Ids:
    """Returns the labels of the units, after saying what the weights have to do with them."""
    layer, cell = call.layer, call.layer.cell
    if layer.stateful:
        raise NoRule("it keeps its state between batches")
    if getattr(cell, "data_format", None) == "channels_first":
        raise NoRule("it has its channels first")
    convolution = hasattr(cell, "filters")
    units = call.units(cell.filters if convolution else cell.units, key)
    spatial = [None] * (len(cell.kernel.shape) - 2)
    # The gates lie behind one another: (input, gates * units)
    gates = np.tile(units, _GATES[type(layer)])
    sequence, *states = call.inputs
    for axis in sequence.free_axes:
        if axis != sequence.rank - 1:
            call.protect(sequence[axis], f"'{call.layer.name}' works along their axis {axis}")
    call.weight(cell.kernel, *spatial, consumes(sequence[-1]), produces(gates))
    call.weight(cell.recurrent_kernel, *spatial, consumes(units), produces(gates))
    if cell.bias is not None:
        # GRU with reset_after has two rows.
        call.weight(cell.bias, *[None] * (len(cell.bias.shape) - 1), produces(gates))
    for state in states:
        call.merge(state[-1], units)
    call.resize("filters" if convolution else "units", units)
    hold_unless_elementwise(call, cell.activation, units)
    return units


def bidirectional(call: Call) -> list[Labels]:
    """Both directions lose the same units, as Keras takes them to be of one size."""
    layer = call.layer
    sequence, *states = call.inputs
    half = len(states) // 2
    if type(layer.forward_layer) not in _GATES or type(layer.backward_layer) not in _GATES:
        raise NoRule("it wraps a layer other than LSTM, GRU or SimpleRNN")
    forward = _recurrent(call.inner(layer.forward_layer, _WRAPPED, sequence, *states[:half]))
    backward = _recurrent(
        call.inner(layer.backward_layer, ("backward_layer", "config"), sequence, *states[half:])
    )
    call.merge(forward, backward)
    outputs: list[Labels] = []
    for shape in call.shapes:
        both = shape[-1] == 2 * len(forward) and not outputs and layer.merge_mode == "concat"
        ids = np.concatenate([forward, backward]) if both else forward
        outputs.append(Labels.fixed(shape).with_axis(-1, ids))
    return outputs


def time_distributed(
    rule_of: Callable[[keras.layers.Layer], Rule | None],
) -> Rule:
    """Returns the rule of TimeDistributed, which asks for that of the layer inside."""

    def rule(call: Call) -> Labels:
        layer = call.layer.layer
        inside = rule_of(layer)
        if inside is None:
            raise NoRule(f"no rule for {type(layer).__qualname__} inside it")
        x = call.x
        if x[1].any():
            raise NoRule("units lie along its time axis")
        # (batch, time, …) -> (batch, …)
        inner = call.inner(layer, _WRAPPED, Labels((x[0], *x.axes[2:])))
        inner.shapes = [(shape[0], *shape[2:]) for shape in call.shapes]
        (output,) = keras.tree.flatten(inside(inner))
        if inner.over_kept:
            raise NoRule(f"{type(layer).__qualname__} inside it mixes units")
        return Labels((output[0], x[1], *output.axes[1:]))

    return rule


RULES: dict[type, Rule] = {
    keras.layers.Bidirectional: bidirectional,
    **dict.fromkeys(_GATES, recurrent),
}
