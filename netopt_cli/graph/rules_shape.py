"""Rules of what moves values: Flatten, Reshape, Permute."""

from __future__ import annotations

import keras
import numpy as np

from netopt_cli.graph.labels import Ids, Labels, blocks, fixed, is_free
from netopt_cli.graph.rule_call import Call, Rule


def flatten(call: Call) -> Labels:
    x = call.x
    if call.layer.data_format == "channels_first" and x.rank > 2:
        x = transposed(x, (0, *range(2, x.rank), 1))
    return reshaped(call, x, call.shapes[0])


def reshape(call: Call) -> Labels:
    result = reshaped(call, call.x, call.shapes[0])
    call.resize("target_shape", list(result.axes[1:]))
    return result


def permute(call: Call) -> Labels:
    return transposed(call.x, (0, *call.layer.dims))


def repeat_vector(call: Call) -> Labels:
    return Labels((call.x[0], fixed(call.shapes[0][1]), call.x[1]))


def transposed(x: Labels, order: tuple[int, ...]) -> Labels:
    return Labels(tuple(x[axis] for axis in order))


def reshaped(call: Call, x: Labels, shape: tuple[int | None, ...]) -> Labels:
    """Moves labels as a reshape moves values.

    Where units would lie along two axes of the result, they are tied so that they lie along the
    last one: a Dense of 12 units reshaped to (3, 4) has 4 units of 3 neurons each.

    Args:
        shape: The shape of the result, of which unknown sizes count 1.
    """
    sizes = [size or 1 for size in shape]
    if np.prod(sizes) != np.prod(x.shape):
        # Sizes known on one side alone: nothing can be told of what goes where.
        for axis in x.free_axes:
            call.protect(x[axis], f"'{call.layer.name}' reshapes an axis of unknown size")
        return Labels.fixed(shape)
    axes: list[Ids] = []
    for old, new in blocks(x.shape, sizes):
        axes += _block(call, [x[axis] for axis in old], [sizes[axis] for axis in new])
    return Labels(tuple(axes))


def _block(call: Call, old: list[Ids], sizes: list[int]) -> list[Ids]:
    if len(old) == len(sizes) == 1:
        return old
    free = [axis for axis in range(len(old)) if is_free(old[axis])]
    if not free:
        return [fixed(size) for size in sizes]
    *others, moving = free
    for axis in others:
        call.protect(old[axis], f"'{call.layer.name}' folds their axis into another one")
    ids = old[moving].reshape([-1 if axis == moving else 1 for axis in range(len(old))])
    values = np.broadcast_to(ids, [len(axis) for axis in old]).reshape(sizes)
    along = [axis for axis in range(len(sizes)) if (values.take([0], axis) != values).any()]
    if not along:
        return [fixed(size) for size in sizes]
    # (…, n along the axis that the units are to lie along)
    table = np.moveaxis(values, along[-1], -1).reshape(-1, sizes[along[-1]])
    for row in table[1:] if len(along) > 1 else ():
        call.merge(table[0], row)
    return [table[0] if axis == along[-1] else fixed(size) for axis, size in enumerate(sizes)]


RULES: dict[type, Rule] = {
    keras.layers.Flatten: flatten,
    keras.layers.Permute: permute,
    keras.layers.RepeatVector: repeat_vector,
    keras.layers.Reshape: reshape,
}
