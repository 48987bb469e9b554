"""Low-rank updates of frozen kernels (LoRA), merged into the kernels at every step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import keras
import tensorflow as tf

from netopt_cli.contracts import Modifier


class LowRankUpdate:
    """kernel = base + alpha / rank · A B, of which A and B are trained (Hu et al., 2022).

    A kernel of rank 3 and more is taken as a matrix (rows, columns), split between those two of its
    axes where the factors are smallest: a convolution's, as a rule, into window and inputs as rows
    and outputs as columns. B starts at zero, so that the network starts as it was. No layer is
    added: the kernel *is* the merged one from first to last, in validation and in the file.

    Attributes:
        kernel: The weight; not trained itself.
        factors: A (rows, rank) and B (rank, columns).
    """

    def __init__(self, kernel: keras.Variable, rank: int, alpha: float, seed: int) -> None:
        rows, columns = matrix_sides(tuple(kernel.shape))
        self.kernel = kernel
        self._base = tf.constant(kernel.numpy())
        self._scale = alpha / rank
        limit = 1.0 / math.sqrt(rows)
        uniform = keras.initializers.RandomUniform(-limit, limit, seed=seed)
        name = kernel.path.replace("/", "_")
        self.factors = (
            keras.Variable(uniform((rows, rank)), name=f"{name}_lora_a"),
            keras.Variable(tf.zeros((rank, columns)), name=f"{name}_lora_b"),
        )

    def merged(self) -> tf.Tensor:
        """The kernel as it is with the update."""
        a, b = (tf.convert_to_tensor(factor.value) for factor in self.factors)
        return self._base + self._scale * tf.reshape(a @ b, self._base.shape)


def matrix_sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a kernel as a matrix, split where their sum is least."""
    splits = [(math.prod(shape[:axis]), math.prod(shape[axis:])) for axis in range(1, len(shape))]
    return min(splits, key=sum)


def is_smaller(kernel: keras.Variable, rank: int) -> bool:
    """Whether factors of this rank have fewer values than the kernel."""
    return rank * sum(matrix_sides(tuple(kernel.shape))) < math.prod(kernel.shape)


def low_rank_updates(
    kernels: Mapping[str, keras.Variable], rank: int, alpha: float, seed: int
) -> Modifier:
    """Trains an update of each kernel in its place; the kernels must not be trained themselves."""
    updates = [
        LowRankUpdate(kernel, rank, alpha, seed + index)
        for index, kernel in enumerate(kernels.values())
    ]

    def merge() -> None:
        for update in updates:
            update.kernel.assign(update.merged())

    return Modifier(
        "low-rank updates",
        variables=tuple(factor for update in updates for factor in update.factors),
        substitute=lambda seed: [(update.kernel, update.merged()) for update in updates],
        constrain=merge,
    )
