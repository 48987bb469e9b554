"""Rules of bare operations in a functional graph (`keras.ops.mean(x, -1)`, `x[:, 0]`), by name."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from netopt_cli.graph.labels import Ids, Labels, fixed
from netopt_cli.graph.rule_call import Arguments, Call, Kept, NoRule, Rule
from netopt_cli.graph.rules_mixing import einsum_terms
from netopt_cli.graph.rules_pointwise import concatenated, layer_axes, softmax_like, spatial
from netopt_cli.graph.rules_shape import reshaped, transposed

_ELEMENTWISE = [
    "Abs",
    "Absolute",
    "Add",
    "Arccos",
    "Arccosh",
    "Arcsin",
    "Arcsinh",
    "Arctan",
    "Arctan2",
    "Arctanh",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "ConvertToTensor",
    "Copy",
    "Cos",
    "Cosh",
    "Divide",
    "DivideNoNan",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Exp2",
    "Expm1",
    "Floor",
    "FloorDivide",
    "Fmax",
    "Fmin",
    "Gelu",
    "Greater",
    "GreaterEqual",
    "HardShrink",
    "HardSigmoid",
    "HardSilu",
    "HardTanh",
    "Hypot",
    "Isfinite",
    "Isinf",
    "Isnan",
    "LeakyRelu",
    "Less",
    "LessEqual",
    "Log",
    "Log10",
    "Log1p",
    "Log2",
    "LogSigmoid",
    "Logaddexp",
    "LogicalAnd",
    "LogicalNot",
    "LogicalOr",
    "LogicalXor",
    "Maximum",
    "Minimum",
    "Mod",
    "Multiply",
    "NanToNum",
    "Negative",
    "NotEqual",
    "OnesLike",
    "Power",
    "Reciprocal",
    "Relu",
    "Relu6",
    "Round",
    "Rsqrt",
    "SaturateCast",
    "Selu",
    "Sigmoid",
    "Sign",
    "Silu",
    "Sin",
    "Sinh",
    "SoftShrink",
    "Softplus",
    "Softsign",
    "SparsePlus",
    "SparseSigmoid",
    "Sqrt",
    "Square",
    "Squareplus",
    "StopGradient",
    "Subtract",
    "Tan",
    "Tanh",
    "TanhShrink",
    "Threshold",
    "TrueDivide",
    "Trunc",
    "Where",
    "ZerosLike",
]
_REDUCTIONS = "All Amax Amin Any Logsumexp Max Mean Median Min Nanmean Nansum Prod Std Sum Var"


def elementwise(call: Call) -> Labels:
    return call.merge_broadcast(*operands(call))


def operands(call: Call) -> list[Labels]:
    """Returns the labels of what an operation combines; those of constants are fixed."""
    return [
        one if isinstance(one, Labels) else Labels.fixed(one.shape)
        for one in keras.tree.flatten((call.args, call.kwargs))
        if isinstance(one, Labels) or hasattr(one, "shape")
    ]


def reduction(call: Call) -> Labels:
    x = call.x
    axes = call.layer.axis
    gone = {axis % x.rank for axis in (range(x.rank) if axes is None else layer_axes(axes))}
    call.over_kept = any(axis in gone for axis in x.free_axes)
    if call.layer.keepdims:
        return Labels(tuple(fixed(1) if i in gone else ids for i, ids in enumerate(x.axes)))
    return Labels(tuple(ids for axis, ids in enumerate(x.axes) if axis not in gone))


def softmax(call: Call) -> Labels:
    return softmax_like(call, *layer_axes(call.layer.axis))


def reshape(call: Call) -> Labels:
    result = reshaped(call, call.x, call.shapes[0])
    call.resize("newshape", list(result.axes))
    return result


def broadcast_to(call: Call) -> Labels:
    shape = Labels.fixed(call.shapes[0])
    result = call.merge_broadcast(shape, call.x) if not call.x.free_axes else _widened(call, shape)
    call.resize("shape", list(result.axes))
    return result


def _widened(call: Call, shape: Labels) -> Labels:
    x = call.x
    new = shape.rank - x.rank
    axes = [
        x[axis - new] if axis >= new and len(x[axis - new]) == len(ids) else ids
        for axis, ids in enumerate(shape.axes)
    ]
    return Labels(tuple(axes))


def transpose(call: Call) -> Labels:
    return transposed(call.x, tuple(call.layer.axes or reversed(range(call.x.rank))))


def swap_axes(call: Call) -> Labels:
    order = list(range(call.x.rank))
    one, other = call.layer.axis1, call.layer.axis2
    order[one], order[other] = order[other], order[one]
    return transposed(call.x, tuple(order))


def move_axis(call: Call) -> Labels:
    order = np.moveaxis(
        np.empty(range(1, call.x.rank + 1), np.int8), call.layer.source, call.layer.destination
    ).shape
    return transposed(call.x, tuple(size - 1 for size in order))


def expand_dims(call: Call) -> Labels:
    rank = len(call.shapes[0])
    new = {axis % rank for axis in layer_axes(call.layer.axis)}
    rest = iter(call.x.axes)
    return Labels(tuple(fixed(1) if axis in new else next(rest) for axis in range(rank)))


def squeeze(call: Call) -> Labels:
    x, axes = call.x, call.layer.axis
    if axes is None:
        raise NoRule("it does not name the axes it takes away")
    gone = {axis % x.rank for axis in layer_axes(axes)}
    return Labels(tuple(ids for axis, ids in enumerate(x.axes) if axis not in gone))


def concatenate(call: Call) -> Labels:
    return concatenated(call, operands(call), call.layer.axis)


def stack(call: Call) -> Labels:
    tied = call.merge_broadcast(*operands(call))
    axis = call.layer.axis % (tied.rank + 1)
    axes = list(tied.axes)
    axes.insert(axis, fixed(call.shapes[0][axis]))
    return Labels(tuple(axes))


def unstack(call: Call) -> list[Labels]:
    axis = call.layer.axis % call.x.rank
    if call.x[axis].any():
        raise NoRule("units lie along the axis that it takes apart")
    rest = Labels(tuple(ids for other, ids in enumerate(call.x.axes) if other != axis))
    return [rest for _ in call.shapes]


def split(call: Call) -> list[Labels]:
    axis = call.layer.axis % call.x.rank
    ids = call.x[axis]
    if not ids.any():
        return [call.x.with_axis(axis, fixed(shape[axis])) for shape in call.shapes]
    ends = np.cumsum([shape[axis] for shape in call.shapes])[:-1]
    call.resize("indices_or_sections", [ids[:end] for end in ends])
    return [call.x.with_axis(axis, part) for part in np.split(ids, ends)]


def get_item(call: Call) -> Labels:
    x = call.x
    key = call.args[1] if len(call.args) > 1 else call.kwargs["key"]
    parts = list(key) if isinstance(key, (tuple, list)) else [key]
    if not all(part is None or isinstance(part, (int, slice, type(...))) for part in parts):
        raise NoRule("its key is not made of numbers and slices")
    if ... not in parts:
        parts.append(...)
    at = parts.index(...)
    named = sum(part is not None for part in parts) - 1
    parts[at : at + 1] = [slice(None)] * (x.rank - named)

    axes: list[Ids] = []
    taken: list[Ids | None] = []  # the labels along which a part of the key counts
    rest = iter(x.axes)
    for part in parts:
        if part is None:
            axes.append(fixed(1))
            taken.append(None)
            continue
        ids = next(rest)
        taken.append(ids if ids.any() else None)
        if isinstance(part, int):
            call.protect(ids[[part]] if ids.any() else ids, f"'{call.layer.name}' picks it out")
            continue
        if ids.any():
            if part.step not in (None, 1):
                call.protect(ids, f"'{call.layer.name}' takes each {part.step}th of them")
            axes.append(ids[part])
        else:
            axes.append(fixed(call.shapes[0][len(axes)]))

    def rewritten(args: tuple[Any, ...], kwargs: dict[str, Any], kept: Kept) -> Arguments:
        new_key = tuple(
            part if ids is None or part is None else _position(part, ids, kept)
            for part, ids in zip(parts, taken, strict=True)
        )
        return (args[0] if args else kwargs["x"], new_key), {}

    if any(ids is not None for ids in taken):
        call.rewritten = rewritten
    return Labels(tuple(axes))


def _position(part: int | slice, ids: Ids, kept: Kept) -> int | slice:
    """Returns where an index or a slice is among the indices that are kept."""
    if isinstance(part, int):
        return int(kept(ids[: part % len(ids)]).sum())
    start, stop, step = part.indices(len(ids))
    if step != 1:
        return part  # All of them stay.
    return slice(int(kept(ids[:start]).sum()), int(kept(ids[:stop]).sum()))


def matmul(call: Call) -> Labels:
    first, second = operands(call)
    if min(first.rank, second.rank) < 2:
        raise NoRule("one of its operands is a vector")
    call.merge(first[-1], second[-2])
    call.over_kept = bool(first[-1].any() or second[-2].any())
    batch = call.merge_broadcast(Labels(first.axes[:-2]), Labels(second.axes[:-2])).axes
    return Labels((*batch, first[-2], second[-1]))


def einsum(call: Call) -> Labels:
    tensors = operands(call)
    *terms, result = einsum_terms(call.layer.subscripts, [one.rank for one in tensors])
    named: dict[str, Ids] = {}
    for term, labels in zip(terms, tensors, strict=True):
        for letter, ids in zip(term, labels.axes, strict=True):
            if len(named.setdefault(letter, ids)) != len(ids):
                raise NoRule("its operands are broadcast")
            call.merge(named[letter], ids)
    call.over_kept = any(ids.any() for letter, ids in named.items() if letter not in result)
    return Labels(tuple(named[letter] for letter in result))


def pad(call: Call) -> Labels:
    widths = call.layer.pad_width
    widths = list(widths) * call.x.rank if len(widths) == 1 else list(widths)
    axes = []
    for axis, (ids, width) in enumerate(zip(call.x.axes, widths, strict=True)):
        if ids.any():
            if call.layer.mode != "constant" and any(width):
                call.protect(ids, f"'{call.layer.name}' repeats some of them")
            axes.append(np.pad(ids, tuple(width)))
        else:
            axes.append(fixed(call.shapes[0][axis]))
    return Labels(tuple(axes))


def flip(call: Call) -> Labels:
    axes = call.layer.axis
    flipped = range(call.x.rank) if axes is None else layer_axes(axes)
    labels = call.x
    for axis in flipped:
        labels = labels.with_axis(axis, labels[axis][::-1])
    return labels


def repeat(call: Call) -> Labels:
    axis, repeats = call.layer.axis, call.layer.repeats
    if axis is None or not isinstance(repeats, int):
        raise NoRule("it repeats by more than one number along one axis")
    if not call.x[axis].any():
        return call.x.with_axis(axis, fixed(call.shapes[0][axis]))
    return call.x.with_axis(axis, np.repeat(call.x[axis], repeats))


def tile(call: Call) -> Labels:
    repeats = layer_axes(call.layer.repeats)
    if len(repeats) != call.x.rank:
        raise NoRule("its repeats do not name each axis")
    axes = [
        np.tile(ids, times) if ids.any() else fixed(size)
        for ids, times, size in zip(call.x.axes, repeats, call.shapes[0], strict=True)
    ]
    return Labels(tuple(axes))


RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    **dict.fromkeys(_REDUCTIONS.split(), reduction),
    **dict.fromkeys(("LogSoftmax", "Normalize", "Softmax"), softmax),
    **dict.fromkeys(("AveragePool", "MaxPool", "Resize"), spatial),
    "BroadcastTo": broadcast_to,
    "Concatenate": concatenate,
    "Einsum": einsum,
    "ExpandDims": expand_dims,
    "Flip": flip,
    "GetItem": get_item,
    "Matmul": matmul,
    "Moveaxis": move_axis,
    "Pad": pad,
    "Repeat": repeat,
    "Reshape": reshape,
    "Split": split,
    "Squeeze": squeeze,
    "Stack": stack,
    "Swapaxes": swap_axes,
    "Tile": tile,
    "Transpose": transpose,
    "Unstack": unstack,
}
