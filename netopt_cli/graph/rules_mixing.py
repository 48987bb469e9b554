"""Rules of what mixes the units of an axis: normalization over channels, Dot, EinsumDense."""

from __future__ import annotations

import keras
import numpy as np

from netopt_cli.graph.labels import Ids, Labels
from netopt_cli.graph.rule_call import Call, NoRule, Rule, WeightAxis, consumes, follows, produces
from netopt_cli.graph.rules_dense import hold_unless_elementwise, refuse_adapters
from netopt_cli.graph.rules_pointwise import layer_axes, softmax_like


def layer_norm(call: Call) -> Labels:
    """LayerNormalization and RMSNormalization: statistics over the units that are left."""
    axes = layer_axes(call.layer.axis)
    for variable in call.layer.weights:
        # RMSNormalization over several axes keeps its scale in their order as well.
        call.weight(variable, *[follows(call.x[axis]) for axis in axes])
    return softmax_like(call, *axes)


def group_norm(call: Call) -> Labels:
    """Whole groups are the units; with one group its statistics are over the units left."""
    layer = call.layer
    x = call.x[layer.axis]
    if layer.groups == 1:
        softmax_like(call, layer.axis)
    else:
        # A unit of its own for each group, not `units`: they belong to the layers before.
        first = x[:: len(x) // layer.groups]
        call.merge(x, np.repeat(first, len(x) // layer.groups))
        call.resize("groups", first)
    for variable in layer.weights:
        call.weight(variable, follows(x))
    return call.x


def unit_norm(call: Call) -> Labels:
    return softmax_like(call, *layer_axes(call.layer.axis))


def dot(call: Call) -> Labels:
    first, second = call.inputs
    axes = call.layer.axes
    one, other = (axes, axes) if isinstance(axes, int) else axes
    one, other = one % first.rank, other % second.rank
    call.merge(first[one], second[other])
    call.over_kept = one in first.free_axes or other in second.free_axes
    left = [first[axis] for axis in range(1, first.rank) if axis != one]
    left += [second[axis] for axis in range(1, second.rank) if axis != other]
    return Labels((first[0], *left)) if left else Labels.fixed(call.shapes[0])


def einsum_dense(call: Call) -> Labels:
    """Axes that the kernel sums over are consumed, those it adds are new units."""
    layer = call.layer
    refuse_adapters(layer)
    taken, kernel, given = einsum_terms(layer.equation, [call.x.rank, None])
    named = dict(zip(taken, call.x.axes, strict=True))
    sizes = dict(zip(kernel, layer.kernel.shape, strict=True))
    new = {letter: call.units(sizes[letter], letter) for letter in given if letter not in named}
    labels: dict[str, Ids] = {**named, **new}
    call.over_kept = any(
        labels[letter].any() for letter in taken if letter not in kernel and letter not in given
    )

    def weight_axis(letter: str) -> WeightAxis:
        if letter in new:
            return produces(new[letter])
        return (follows if letter in given else consumes)(named[letter])

    call.weight(layer.kernel, *[weight_axis(letter) for letter in kernel])
    result = Labels(tuple(labels[letter] for letter in given))
    if layer.bias is not None:
        # Its axes start at the first one it varies along; size 1 where it does not vary.
        shown = given[result.rank - len(layer.bias.shape) :]
        call.weight(
            layer.bias,
            *[weight_axis(letter) if letter in layer.bias_axes else None for letter in shown],
        )
    count = len(layer.partial_output_shape)
    call.resize("output_shape", [ids if ids.any() else None for ids in result.axes[-count:]])
    for ids in new.values():
        hold_unless_elementwise(call, layer.activation, ids)
    return result


def einsum_terms(equation: str, ranks: list[int | None]) -> list[str]:
    """Returns the letters of each operand and of the result, an ellipsis spelled out.

    Args:
        ranks: Of the operands; None for one that has no ellipsis.
    """
    equation = equation.replace(" ", "")
    if "->" not in equation:
        raise NoRule(f"its equation '{equation}' does not name the result")
    left, right = equation.split("->")
    terms = left.split(",")
    spare = [chr(ord("α") + number) for number in range(12)]
    hidden = 0
    for term, rank in zip(terms, ranks, strict=True):
        if "..." in term:
            if rank is None:
                raise NoRule(f"its equation '{equation}' has an ellipsis in the kernel")
            hidden = max(hidden, rank - len(term.replace("...", "")))
    found = []
    for term, rank in zip([*terms, right], [*ranks, None], strict=True):
        count = hidden if rank is None else rank - len(term.replace("...", ""))
        found.append(term.replace("...", "".join(spare[hidden - count : hidden])))
        if len(set(found[-1])) < len(found[-1]):
            raise NoRule(f"its equation '{equation}' takes a diagonal")
    return found


RULES: dict[type, Rule] = {
    keras.layers.Dot: dot,
    keras.layers.EinsumDense: einsum_dense,
    keras.layers.GroupNormalization: group_norm,
    keras.layers.LayerNormalization: layer_norm,
    keras.layers.RMSNormalization: layer_norm,
    keras.layers.UnitNormalization: unit_norm,
}
