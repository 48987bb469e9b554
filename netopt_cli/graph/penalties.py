"""Penalties on weights: their size, their number of units, their likeness to one another."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.contracts import Forward, Modifier
from netopt_cli.graph.channels import Group, read_channels, values_of, weights_by_path
from netopt_cli.graph.kernels import kernels


def elastic(model: keras.Model, l1: float, l2: float) -> Modifier:
    """Adds l1 · Σ |w| + l2 · Σ w² over all kernels to the loss; with both, the elastic net
    (Zou and Hastie, 2005)."""
    weights = list(kernels(model).values())

    def extra_loss(step: Forward) -> tf.Tensor:
        total = tf.constant(0.0)
        for variable in weights:
            weight = tf.convert_to_tensor(variable.value)
            if l1:
                total += l1 * tf.reduce_sum(tf.abs(weight))
            if l2:
                total += l2 * tf.reduce_sum(tf.square(weight))
        return total

    return Modifier("penalty", extra_loss=extra_loss)


def orthogonal(model: keras.Model, factor: float) -> Modifier:
    """Adds factor · Σ ‖WᵀW − I‖² over all kernels to the loss (soft orthogonality: Bansal et al.,
    2018).

    W is the kernel as a matrix (all other axes, outputs); where it has more outputs than inputs,
    its rows are taken instead of its columns.
    """
    weights = list(kernels(model).values())

    def extra_loss(step: Forward) -> tf.Tensor:
        total = tf.constant(0.0)
        for variable in weights:
            matrix = tf.reshape(variable.value, (-1, variable.shape[-1]))
            is_wide = matrix.shape[0] < matrix.shape[1]
            gram = tf.matmul(matrix, matrix, transpose_a=not is_wide, transpose_b=is_wide)
            total += factor * tf.reduce_sum(tf.square(gram - tf.eye(gram.shape[0])))
        return total

    return Modifier("orthogonal", extra_loss=extra_loss)


def group_lasso(model: keras.Model, factor: float) -> Modifier:
    """Shrinks whole units, until those that are not worth their weights are exactly zero.

    The penalty is factor · Σ √n ‖w‖ over the units of all groups of channels (Yuan and Lin, 2006;
    Wen et al., 2016). The w of a unit, n values, are all the weights that would go with it: the
    ones that compute it, its bias and normalization, those that read it. So a unit at zero adds
    nothing, gets no gradient, stays there, and `opt=structured` can remove it for nothing.

    It is not added to the loss, whose subgradient never reaches zero: after each update the
    proximal step shrinks each unit by (learning rate · factor · √n), decoupled from the optimizer
    as weight decay is in AdamW. The last epoch counts, for zeros come late.
    """
    units = _units_of(model)

    def proximal(learning_rate: tf.Tensor) -> None:
        for unit in units:
            unit.shrink(tf.cast(learning_rate, tf.float32) * factor)

    return Modifier("group lasso", proximal=proximal, settles_at=1.0)


def zero_units(model: keras.Model) -> dict[str, tuple[int, int]]:
    """Returns group of channels -> its units of which nothing is left, and all of its units."""
    values = values_of(model)
    trainable = {path for path, variable in weights_by_path(model).items() if variable.trainable}
    found = {}
    for group in read_channels(model).groups:
        kept = [m for m in group.members if m.path in trainable]
        rows = Group(group.name, group.size, tuple(kept), group.ids).rows(values)
        found[group.name] = (int(np.sum(~rows.any(axis=1))), group.size)
    return found


@dataclass(frozen=True)
class _Part:
    """Units in one axis of one weight: the unit of each index, -1 where there is none."""

    variable: keras.Variable
    axis: int
    unit_of: np.ndarray


@dataclass(frozen=True)
class _Units:
    """The units of one group of channels."""

    count: int
    values: int
    parts: tuple[_Part, ...]

    def shrink(self, strength: tf.Tensor) -> None:
        """One proximal step: ‖w‖ becomes max(0, ‖w‖ - strength · √n)."""
        squares = tf.zeros(self.count)
        for part in self.parts:
            others = [axis for axis in range(len(part.variable.shape)) if axis != part.axis]
            of_index = tf.reduce_sum(tf.square(part.variable.value), axis=others)
            squares += tf.math.unsorted_segment_sum(of_index, part.unit_of, self.count)
        norms = tf.sqrt(squares)
        left = tf.maximum(0.0, norms - strength * self.values**0.5)
        factors = tf.concat([tf.math.divide_no_nan(left, norms), [1.0]], axis=0)
        for part in self.parts:
            shape = [-1 if a == part.axis else 1 for a in range(len(part.variable.shape))]
            of_index = tf.gather(factors, np.where(part.unit_of < 0, self.count, part.unit_of))
            part.variable.assign(part.variable.value * tf.reshape(of_index, shape))


def _units_of(model: keras.Model) -> list[_Units]:
    graph = read_channels(model)
    found = []
    for group in graph.groups:
        parts, values = [], 0
        for member in group.members:
            variable = graph.paths[member.path]
            if not variable.trainable:
                continue
            size = variable.shape[member.axis]
            unit_of = np.full(size, -1, np.int32)
            unit_of[member.indices] = np.arange(group.size)[:, None]
            parts.append(_Part(variable, member.axis, unit_of))
            values += member.indices.shape[1] * int(np.prod(variable.shape)) // size
        if parts:
            found.append(_Units(group.size, values, tuple(parts)))
    return found
