"""Kernels as matrices, and the low-rank algebra on them."""

import math

import keras
import numpy as np

from netopt_cli.graph.calls import einsum_labels


def matrix_of(layer: keras.Layer, kernel: np.ndarray) -> np.ndarray:
    """A kernel as (what is summed, what is new)."""
    if not isinstance(layer, keras.layers.EinsumDense):
        return kernel.reshape(-1, kernel.shape[-1])
    inputs, labels, _ = einsum_labels(layer)
    order = sorted(range(len(labels)), key=lambda axis: labels[axis] not in inputs)
    rows = math.prod(
        size for label, size in zip(labels, kernel.shape, strict=True) if label in inputs
    )
    return kernel.transpose(order).reshape(rows, -1)


def spatial_matrix(kernel: np.ndarray) -> np.ndarray:
    """(h, w, in, out) → (h · in, w · out)."""
    height, width, channels, filters = kernel.shape
    return kernel.transpose(0, 2, 1, 3).reshape(height * channels, width * filters)


def unfolded(kernel: np.ndarray, axis: int) -> np.ndarray:
    """(…) → (channels of the axis, everything else)."""
    return np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)


def tail_of(matrix: np.ndarray) -> np.ndarray:
    """(m, n) → (rank + 1,): the fraction of the squared norm beyond the first 0, 1, … components.

    By the eigenvalues of the smaller Gram matrix: much faster than the singular values, and as
    good, since only squares count.
    """
    rank = min(matrix.shape)
    full = _gram(matrix)
    energies = np.clip(np.linalg.eigvalsh(full), 0.0, None)[::-1][:rank]
    total = energies.sum()
    if total == 0:
        return np.zeros(rank + 1)
    beyond = np.concatenate([np.cumsum(energies[::-1])[::-1], [0.0]])
    return beyond / total


def _gram(matrix: np.ndarray) -> np.ndarray:
    wide = matrix.astype(np.float64)
    return wide @ wide.T if wide.shape[0] <= wide.shape[1] else wide.T @ wide


def left_vectors(matrix: np.ndarray, rank: int) -> np.ndarray:
    """(m, n) → (m, rank): the eigenvectors of the rows' Gram matrix with the largest values."""
    wide = matrix.astype(np.float64)
    _, vectors = np.linalg.eigh(wide @ wide.T)
    return vectors[:, ::-1][:, :rank]


def split(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Truncated SVD, (m, n) → (m, rank), (rank, n); each takes half of the scale.

    As a projection on the vectors of the shorter side, which is many times faster than an SVD.
    """
    if matrix.shape[0] > matrix.shape[1]:
        right, left = split(matrix.T, rank)
        return left.T, right.T
    vectors = left_vectors(matrix, rank)
    others = vectors.T @ matrix  # Rows as long as the singular values.
    scale = np.sqrt(np.maximum(np.linalg.norm(others, axis=1), np.finfo(np.float32).tiny))
    return vectors * scale, others / scale[:, None]
