"""Low-rank factorization: one layer becomes two or three thinner ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from netopt_cli.graph.calls import einsum_labels
from netopt_cli.graph.matrices import left_vectors, matrix_of, spatial_matrix, split, unfolded
from netopt_cli.graph.naming import unused_name
from netopt_cli.graph.ranks import Factorization
from netopt_cli.graph.rebuild import layers, plain_copy, rebuild

_Factors = list[tuple[keras.Layer, np.ndarray]]
_LINEAR = {"use_bias": False, "activation": "linear", "activity_regularizer": None}


def factorize(model: keras.Model, factorizations: Sequence[Factorization]) -> keras.Model:
    """Rebuilds a model with factorized layers.

    The last factor keeps the layer's name, bias and activation; the ones before it are linear and
    have no bias. At full rank the function stays the same.
    """
    taken = {layer.name for layer in layers(model)}
    factors = {id(f.layer): _factors(f, taken) for f in factorizations}

    def clone(layer: keras.Layer) -> keras.Layer | None:
        return factors[id(layer)][-1][0] if id(layer) in factors else None

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        for factor, _ in factors.get(id(layer), [])[:-1]:
            args = (factor(args[0]), *args[1:])
        return new_layer(*args, **kwargs)

    rebuilt, _ = rebuild(model, clone=clone, call=call)
    for f in factorizations:
        for factor, kernel in factors[id(f.layer)]:
            # Last in a factor with a bias, which is the layer's own.
            bias = f.layer.get_weights()[1:] if factor.name == f.layer.name else []
            factor.set_weights([kernel, *bias])
    return rebuilt


def _factors(f: Factorization, taken: set[str]) -> list[tuple[keras.Layer, np.ndarray]]:
    """Returns the layers that stand for one, in order, with their kernels."""
    makers = {
        "svd": _dense_factors,
        "channel": _channel_factors,
        "spatial": _spatial_factors,
        "tucker": _tucker_factors,
        "rows": _row_factors,
    }
    return makers[f.kind](f.layer, f.ranks, taken)


def _dense_factors(layer: keras.Layer, ranks: tuple[int, ...], taken: set[str]) -> _Factors:
    (rank,) = ranks
    kernel = layer.kernel.numpy()
    first, second = split(matrix_of(layer, kernel), rank)  # (rows, r), (r, columns)
    name = unused_name(f"{layer.name}_basis", taken)
    if isinstance(layer, keras.layers.Dense):
        basis = plain_copy(layer, name=name, units=rank, **_LINEAR)
        return [(basis, first), (plain_copy(layer), second)]
    inputs, labels, output = einsum_labels(layer)
    summed = [label for label in labels if label in inputs]
    new = [label for label in labels if label in output]
    sizes = dict(zip(labels, kernel.shape, strict=True))
    free = next(c for c in "abcdefghijklmnopqrstuvwxyz" if c not in layer.equation)
    middle = "".join(label for label in inputs if label not in summed) + free
    into, out_of = "".join(summed) + free, free + "".join(new)
    linear = {"bias_axes": None, "activation": "linear", "activity_regularizer": None}
    basis = plain_copy(
        layer,
        name=name,
        equation=f"{inputs},{into}->{middle}".replace(".", "..."),
        output_shape=(*[None] * len(middle[1:-1].replace(".", "")), rank),
        **linear,
    )
    last = plain_copy(layer, equation=f"{middle},{out_of}->{output}".replace(".", "..."))
    return [
        (basis, first.reshape(*[sizes[label] for label in summed], rank)),
        (last, second.reshape(rank, *[sizes[label] for label in new])),
    ]


def _row_factors(layer: keras.Layer, ranks: tuple[int, ...], taken: set[str]) -> _Factors:
    """Thin rows that are looked up, then the way back to their width."""
    (rank,) = ranks
    first, second = split(layer.embeddings.numpy(), rank)  # (rows, r), (r, width)
    basis = plain_copy(layer, name=unused_name(f"{layer.name}_basis", taken), output_dim=rank)
    last = keras.layers.Dense(
        second.shape[1], use_bias=False, dtype=layer.dtype_policy, name=layer.name
    )
    return [(basis, first), (last, second)]


def _channel_factors(layer: keras.Layer, ranks: tuple[int, ...], taken: set[str]) -> _Factors:
    (rank,) = ranks
    kernel = layer.kernel.numpy()
    first, second = split(kernel.reshape(-1, kernel.shape[-1]), rank)
    name = unused_name(f"{layer.name}_basis", taken)
    basis = plain_copy(layer, name=name, filters=rank, **_LINEAR)
    return [(basis, first.reshape(*kernel.shape[:-1], rank)), _pointwise(layer, second)]


def _spatial_factors(layer: keras.Layer, ranks: tuple[int, ...], taken: set[str]) -> _Factors:
    (rank,) = ranks
    kernel = layer.kernel.numpy()
    height, width, channels, filters = kernel.shape
    first, second = split(spatial_matrix(kernel), rank)  # (h · in, r), (r, w · out)
    vertical = plain_copy(
        layer,
        name=unused_name(f"{layer.name}_vertical", taken),
        filters=rank,
        kernel_size=(height, 1),
        strides=(layer.strides[0], 1),
        dilation_rate=(layer.dilation_rate[0], 1),
        **_LINEAR,
    )
    horizontal = plain_copy(
        layer,
        kernel_size=(1, width),
        strides=(1, layer.strides[1]),
        dilation_rate=(1, layer.dilation_rate[1]),
    )
    return [
        (vertical, first.reshape(height, 1, channels, rank)),
        # (r, w, out) → (1, w, r, out)
        (horizontal, second.reshape(rank, width, filters).transpose(1, 0, 2)[None]),
    ]


def _tucker_factors(layer: keras.Layer, ranks: tuple[int, ...], taken: set[str]) -> _Factors:
    """Higher-order SVD over the two channel axes."""
    kernel = layer.kernel.numpy()
    inwards, outwards = (
        left_vectors(unfolded(kernel, axis), rank)
        for axis, rank in zip((-2, -1), ranks, strict=True)
    )  # (in, r), (out, s)
    core = np.einsum("...io,ir,os->...rs", kernel, inwards, outwards)
    names = [unused_name(f"{layer.name}_{part}", taken) for part in ("reduce", "core")]
    ones = (1,) * (kernel.ndim - 2)
    reduce, weights = _pointwise(layer, inwards, name=names[0], filters=ranks[0], **_LINEAR)
    return [
        (reduce, weights),
        (plain_copy(layer, name=names[1], filters=ranks[1], **_LINEAR), core),
        (_pointwise(layer, outwards.T)[0], outwards.T.reshape(*ones, ranks[1], -1)),
    ]


def _pointwise(
    layer: keras.Layer, matrix: np.ndarray, **changes: Any
) -> tuple[keras.Layer, np.ndarray]:
    """A 1×1 convolution with a matrix (in, out)."""
    ones = (1,) * (len(layer.kernel.shape) - 2)
    copy = plain_copy(
        layer, kernel_size=ones, strides=ones, dilation_rate=ones, padding="valid", **changes
    )
    return copy, matrix.reshape(*ones, *matrix.shape)
