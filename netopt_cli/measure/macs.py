"""Multiply-accumulates (MACs) of one inference, counted on the traced graph.

Only products of tensors count: convolutions and matrix products, called as often as the graph calls
them, so a shared layer counts at each call. A MAC is one multiplication with its addition, not a
FLOP (which counts them as two). Positions that lie in the padding count, as is usual. Element-wise
operations, normalization (it folds into a convolution) and pooling do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import tensorflow as tf

_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_LOOPS = {"While", "StatelessWhile"}
_BRANCHES = {"If", "StatelessIf", "Case", "StatelessCase"}


class _NotStaticError(Exception):
    """A number that is not known before the graph runs."""


@dataclass(frozen=True)
class MacCount:
    """MACs by operation.

    Attributes:
        by_op: Name of the operation, with those of the calls around it -> MACs.
        uncounted: One line for each operation whose MACs are not known, with the reason.
    """

    by_op: dict[str, int] = field(default_factory=dict)
    uncounted: list[str] = field(default_factory=list)

    @property
    def total(self) -> int | None:
        """None when an operation is uncounted: a part is not the sum."""
        return None if self.uncounted else sum(self.by_op.values())


def count_macs(graph: tf.Graph) -> MacCount:
    """Counts the MACs of a function's graph, see `export.litert.FrozenGraph.traced`."""
    count = MacCount()
    _walk(graph, "", 1, count)
    return count


def _walk(graph: tf.Graph, prefix: str, repeats: int, count: MacCount) -> None:
    for op in _live_operations(graph):
        name = prefix + op.name
        try:
            if op.type in _FORMULAS:
                count.by_op[name] = repeats * _FORMULAS[op.type](op)
            elif op.type in _CALLS:
                _walk(_function(op, "f"), f"{name}/", repeats, count)
            elif op.type in _LOOPS and _has_macs(_function(op, "body")):
                _walk(_function(op, "body"), f"{name}/", repeats * _iterations(op), count)
            elif op.type in _BRANCHES and any(map(_has_macs, _branches(op))):
                raise _NotStaticError("which branch runs depends on the input")
        except _NotStaticError as reason:
            count.uncounted.append(f"{name} ({op.type}): {reason}")


def _live_operations(graph: tf.Graph) -> list[tf.Operation]:
    """Those that an output needs: a recurrent layer also traces a step that never runs."""
    live: set[tf.Operation] = set()
    waiting = [output.op for output in graph.outputs]
    while waiting:
        op = waiting.pop()
        if op not in live:
            live.add(op)
            waiting += [tensor.op for tensor in op.inputs]
    return [op for op in graph.get_operations() if op in live]


def _function(op: tf.Operation, attribute: str) -> tf.Graph:
    return op.graph._get_function(op.get_attr(attribute).name).graph


def _branches(op: tf.Operation) -> list[tf.Graph]:
    if op.type in {"If", "StatelessIf"}:
        return [_function(op, "then_branch"), _function(op, "else_branch")]
    return [op.graph._get_function(branch.name).graph for branch in op.get_attr("branches")]


def _has_macs(graph: tf.Graph) -> bool:
    nested = MacCount()
    _walk(graph, "", 1, nested)
    return bool(nested.by_op or nested.uncounted)


def _iterations(loop: tf.Operation) -> int:
    """The `maximum_iterations` of a `tf.while_loop`: for a recurrent layer, its length."""
    try:
        with tf.compat.v1.Session(graph=loop.graph) as session:
            limit = int(session.run(loop.inputs[1]))
    except tf.errors.InvalidArgumentError:  # it depends on the input of the graph
        limit = -1
    if limit < 0:  # also TensorFlow's way to say: no limit
        raise _NotStaticError("the number of iterations depends on the input")
    return limit


def _shape(tensor: tf.Tensor) -> list[int]:
    if not tensor.shape.is_fully_defined():
        raise _NotStaticError(f"the shape of {tensor.name} is {tensor.shape}")
    return tensor.shape.as_list()


def _positions(op: tf.Operation) -> int:
    """Elements of a convolution's output.

    A dilated one may be traced as SpaceToBatch, a padded convolution, BatchToSpace. LiteRT makes
    one operation of them, without the padding.
    """
    output = op.outputs[0]
    after = output.consumers()
    if len(after) == 1 and after[0].type == "BatchToSpaceND":
        output = after[0].outputs[0]
    return math.prod(_shape(output))


def _convolution(op: tf.Operation) -> int:
    """Kernel (*window, channels_in / groups, channels_out), used once for each output position."""
    return _positions(op) * math.prod(_shape(op.inputs[1])[:-1])


def _depthwise(op: tf.Operation) -> int:
    """Kernel (height, width, channels_in, multiplier)."""
    return _positions(op) * math.prod(_shape(op.inputs[1])[:2])


def _transposed_convolution(op: tf.Operation) -> int:
    """Kernel (*window, channels_out, channels_in), used once for each *input* position."""
    return math.prod(_shape(op.inputs[2])) * math.prod(_shape(op.inputs[1])[:-1])


def _matrix_product(op: tf.Operation) -> int:
    """(…, m, k) @ (…, k, n): `k` for each element of the output."""
    transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
    return math.prod(_shape(op.outputs[0])) * _shape(op.inputs[0])[-2 if transposed else -1]


def _einsum(op: tf.Operation) -> int:
    """For each element of the output, the sizes of the indices that are summed."""
    operands, _, output = op.get_attr("equation").decode().replace(" ", "").partition("->")
    if len(op.inputs) == 1:
        return 0
    sizes: dict[str, int] = {}
    for labels, tensor in zip(operands.split(","), op.inputs, strict=True):
        head, _, tail = labels.partition("...")
        shape = _shape(tensor)
        sizes |= dict(zip(head, shape, strict=False))
        sizes |= dict(zip(reversed(tail), reversed(shape), strict=False))
    summed = math.prod(size for label, size in sizes.items() if label not in output)
    return math.prod(_shape(op.outputs[0])) * summed


_FORMULAS: dict[str, Callable[[tf.Operation], int]] = {
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "Conv2DBackpropInput": _transposed_convolution,
    "Conv3DBackpropInputV2": _transposed_convolution,
    "MatMul": _matrix_product,
    "BatchMatMul": _matrix_product,
    "BatchMatMulV2": _matrix_product,
    "BatchMatMulV3": _matrix_product,
    "Einsum": _einsum,
}
