"""Low-rank factorization: one layer becomes two or three thinner ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import keras
import numpy as np

from netopt_cli.errors import InputError
from netopt_cli.graph.calls import (
    Call,
    calls_by_layer,
    einsum_labels,
    macs,
    positions,
    spatial,
)
from netopt_cli.graph.naming import left_lines, matches, require_matches, unused_name
from netopt_cli.graph.rebuild import layers, plain_copy, rebuild

RankBy = Literal["energy", "ratio", "macs"]
Decomposition = Literal["auto", "channel", "spatial", "tucker"]

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D)
_SUPPORTED = (*_CONVOLUTIONS, keras.layers.Dense, keras.layers.EinsumDense)
Damage = Callable[[np.ndarray], np.ndarray]
"""Fractions of a kernel's energy that are lost -> what that costs; never falling, 0 at 0."""

_NO_ENERGY = 1e-6
_LINEAR = {"use_bias": False, "activation": "linear", "activity_regularizer": None}


@dataclass(frozen=True, eq=False)
class Factorization:
    """What one layer becomes.

    Attributes:
        kind: `svd` (dense layers), `channel`, `spatial` or `tucker` (convolutions).
        ranks: One, or for `tucker` those of the input and of the output channels.
        energy: Fraction of the kernel's squared norm that is kept; for `tucker`, at least that.
        macs: Multiply-accumulates over all calls, before and after.
        params: Weights of the kernels, before and after.
    """

    layer: keras.Layer
    kind: str
    ranks: tuple[int, ...]
    energy: float
    macs: tuple[int, int]
    params: tuple[int, int]

    def __str__(self) -> str:
        ranks = "×".join(map(str, self.ranks))
        return (
            f"{self.layer.name}: {self.kind}, rank {ranks}, {self.energy:.1%} of the energy, "
            f"MACs {self.macs[0]:,} → {self.macs[1]:,}"
        )


def choose_factorizations(
    model: keras.Model,
    *,
    rank_by: RankBy,
    amount: float,
    convolution: Decomposition = "auto",
    exclude: Sequence[str] = (),
    damage_of: Callable[[keras.Layer], Damage] = lambda layer: energy_damage,
) -> tuple[list[Factorization], list[str]]:
    """Chooses the layers to factorize and their ranks; the model is not changed.

    A layer is chosen only where both its MACs and its weights fall. Of the ways to decompose a
    convolution, `auto` takes the one with the fewest MACs at the energy asked for, the one that
    keeps the most energy at the ratio asked for, and weighs all of them for a budget of MACs.

    Args:
        model: Functional or Sequential, nested models and shared layers included.
        rank_by: `energy`: the smallest rank that keeps this fraction of the kernel's squared norm.
            `ratio`: this fraction of the full rank. `macs`: the whole model keeps at most this
            fraction of its MACs; ranks fall where a MAC costs the least damage.
        amount: In (0, 1].
        convolution: `channel`: the kernel to r channels, then 1×1 (Zhang et al., 2016,
            arXiv:1505.06798). `spatial`: k×1 to r channels, then 1×k (Jaderberg et al., 2014,
            arXiv:1405.3866). `tucker`: 1×1, the kernel on fewer channels, 1×1 (Kim et al., 2016,
            arXiv:1511.06530). One that a layer cannot have, as `spatial` for a 1×1 kernel, falls
            back to `channel`.
        exclude: Patterns of layer names to leave alone.
        damage_of: What a layer's lost energy costs, for `macs`; by default `energy_damage` of each.

    Returns:
        The factorizations in the model's order, and lines that say what was left and why.

    Raises:
        InputError: A pattern matches nothing, nothing can be factorized, or the budget is out of
            reach.
    """
    its_calls = calls_by_layer(model)
    candidates: list[tuple[keras.Layer, list[_Form]]] = []
    left: list[tuple[str, str]] = []
    multiplying = _unique(layer for layer in layers(model) if macs(layer, its_calls[id(layer)]))
    names = [layer.name for layer in multiplying]
    require_matches(names, exclude, where="opt.lowrank.exclude")
    for layer in multiplying:
        reason = "excluded" if matches(layer.name, exclude) else unsupported(layer)
        if reason:
            left.append((layer.name, reason))
        else:
            candidates.append((layer, _forms(layer, its_calls[id(layer)], convolution)))
    if not candidates:
        raise InputError(
            f"opt.lowrank finds no layer to factorize in '{model.name}': "
            f"{'; '.join(left_lines(left)) or 'it has no dense layer or convolution'}"
        )

    chosen: dict[int, Factorization]
    if rank_by == "macs":
        total = sum(macs(layer, its_calls[id(layer)]) for layer in multiplying)
        chosen = _within_budget(candidates, damage_of, total, amount)
        reason = "the budget is met without them"
    else:
        chosen = {}
        for layer, forms in candidates:
            best = _by_energy(forms, amount) if rank_by == "energy" else _by_ratio(forms, amount)
            if best is not None:
                chosen[id(layer)] = best
        reason = f"{rank_by} {amount:g} would not lower both MACs and weights"
    left += [(layer.name, reason) for layer, _ in candidates if id(layer) not in chosen]
    return [chosen[id(layer)] for layer in multiplying if id(layer) in chosen], left_lines(left)


def energy_damage(lost: np.ndarray) -> np.ndarray:
    """-log of the energy that is left, so that the layers' product of it counts, not their sum.

    A network is as good as its worst bottleneck: a layer must not be left with next to nothing
    because that saves much (after Kim et al., 2019, arXiv:1811.12781).
    """
    return -np.log(np.maximum(1.0 - lost, _NO_ENERGY))


def energy_lost(layer: keras.Layer, ranks: Sequence[float]) -> np.ndarray:
    """Returns the fraction of a kernel's squared norm that goes with its rank, (n,).

    Args:
        layer: One that can be factorized.
        ranks: Fractions of the full rank of its kernel, as the matrix from what is summed to the
            channels that come out; at least rank 1 is left.
    """
    tail = _tail(_matrix(layer, layer.kernel.numpy()))
    full = len(tail) - 1
    return np.array([tail[max(1, round(rank * full))] for rank in ranks])


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


def unsupported(layer: keras.Layer) -> str | None:
    """Says why a layer cannot be factorized; None when it can."""
    reason = None
    if type(layer) not in _SUPPORTED:
        reason = f"{type(layer).__name__} has no factorization here"
    elif getattr(layer, "groups", 1) > 1:
        reason = "a grouped convolution is thin already"
    elif layer.kernel_constraint is not None:
        reason = "a constraint on the kernel would not hold for its factors"
    elif getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        reason = "the layer is quantized or has an adapter"
    elif isinstance(layer, keras.layers.EinsumDense):
        inputs, kernel, output = einsum_labels(layer)
        if any(label in inputs and label in output for label in kernel):
            reason = "its kernel is a batch of matrices"
        elif not (set(kernel) & set(output) and set(kernel) & set(inputs)):
            reason = "its kernel is a vector"
    return reason


@dataclass(frozen=True, eq=False)
class _Form:
    """A way to decompose one layer, at any ranks.

    Attributes:
        tails: For each rank, the fraction of the energy beyond the first r components, r = 0, 1, ….
        per_position: MACs and weights are sums of terms over the factors:
            (positions over all calls, weights of a factor as a function of the ranks).
    """

    layer: keras.Layer
    kind: str
    macs_before: int
    tails: tuple[np.ndarray, ...]
    terms: tuple[tuple[int, Any], ...]

    @property
    def full(self) -> tuple[int, ...]:
        return tuple(len(tail) - 1 for tail in self.tails)

    @property
    def params_before(self) -> int:
        return math.prod(self.layer.kernel.shape)

    def macs(self, *ranks: Any) -> Any:
        return sum(count * size(*ranks) for count, size in self.terms)

    def params(self, *ranks: Any) -> Any:
        return sum(size(*ranks) for _, size in self.terms)

    def lost(self, *ranks: Any) -> Any:
        """Fraction of the energy that is lost; for two ranks, the bound of their sum."""
        return np.minimum(1.0, sum(tail[r] for tail, r in zip(self.tails, ranks, strict=True)))

    def path(self) -> tuple[np.ndarray, ...]:
        """The ranks worth trying, rising: (options,) for each rank; two ranks lose alike."""
        last = np.arange(1, self.full[-1] + 1)
        if len(self.tails) == 1:
            return (last,)
        allowed = self.tails[-1][last]
        first = np.searchsorted(-self.tails[0], -allowed)  # The first tail that is as small.
        return np.clip(first, 1, self.full[0]), last

    def saves(self, *ranks: Any) -> Any:
        return (self.macs(*ranks) < self.macs_before) & (self.params(*ranks) < self.params_before)

    def at(self, *ranks: int) -> Factorization:
        return Factorization(
            self.layer,
            self.kind,
            tuple(int(rank) for rank in ranks),
            float(1.0 - self.lost(*ranks)),
            (self.macs_before, int(self.macs(*ranks))),
            (self.params_before, int(self.params(*ranks))),
        )


def _by_energy(forms: list[_Form], energy: float) -> Factorization | None:
    found = []
    for form in forms:
        ranks = form.path()
        # A rounding error must not cost a rank at energy 1.
        good = np.flatnonzero(form.saves(*ranks) & (form.lost(*ranks) <= 1.0 - energy + 1e-9))
        if len(good):
            found.append(form.at(*(rank[good[0]] for rank in ranks)))
    return min(found, key=lambda option: option.macs[1], default=None)


def _by_ratio(forms: list[_Form], ratio: float) -> Factorization | None:
    found = []
    for form in forms:
        ranks = [max(1, round(ratio * full)) for full in form.full]
        if form.saves(*ranks):
            found.append(form.at(*ranks))
    return max(found, key=lambda option: option.energy, default=None)


def _within_budget(
    candidates: list[tuple[keras.Layer, list[_Form]]],
    damage_of: Callable[[keras.Layer], Damage],
    total: int,
    fraction: float,
) -> dict[int, Factorization]:
    """Lowers the MACs of a model to a fraction, each step where a MAC costs the least damage.

    Every layer goes down the lower convex hull of (MACs, damage), on which a MAC costs ever
    more: so the cheapest steps of all layers together are the best choice. The last step leaves
    the hull, to go only as far as it has to.
    """
    points = [_points(forms, damage_of(layer)) for layer, forms in candidates]
    steps = sorted(
        ((p.damage[end] - p.damage[start]) / (p.macs[start] - p.macs[end]), order, end)
        for order, p in enumerate(points)
        for start, end in pairwise(p.hull)
    )
    now, budget = total, math.floor(fraction * total)
    reached = [0] * len(points)
    for _, order, end in steps:
        if now <= budget:
            break
        layer = points[order]
        others = now - int(layer.macs[reached[order]])
        reached[order] = end
        if others + layer.macs[end] <= budget:
            enough = np.flatnonzero(others + layer.macs <= budget)
            reached[order] = enough[np.lexsort((layer.macs[enough], layer.damage[enough]))[0]]
        now = others + int(layer.macs[reached[order]])
    if now > budget:
        nearest = math.ceil(1000 * now / total) / 1000
        raise InputError(
            f"opt.lowrank.amount={fraction:g} of the model's {total:,} MACs is out of reach: "
            f"rank 1 wherever it saves leaves {now:,}. Nearest: {nearest:g}"
        )
    return {
        id(layer): p.made_by[point][0].at(*p.made_by[point][1])
        for (layer, _), p, point in zip(candidates, points, reached, strict=True)
        if point
    }


@dataclass(frozen=True, eq=False)
class _Points:
    """What one layer can become; point 0 is the layer as it is.

    Attributes:
        macs: (points,).
        damage: (points,).
        made_by: The form and the ranks of each point.
        hull: The points of the lower convex hull, MACs falling, from point 0.
    """

    macs: np.ndarray
    damage: np.ndarray
    made_by: list[tuple[_Form, tuple[int, ...]]]
    hull: list[int]


def _points(forms: list[_Form], damage: Damage) -> _Points:
    macs_of, damage_of = [np.array([forms[0].macs_before])], [np.zeros(1)]
    made_by: list[tuple[_Form, tuple[int, ...]]] = [(forms[0], forms[0].full)]
    for form in forms:
        ranks = form.path()
        saving = np.flatnonzero(form.saves(*ranks))
        macs_of.append(form.macs(*ranks)[saving])
        damage_of.append(damage(form.lost(*ranks)[saving]))
        made_by += [(form, tuple(rank[i] for rank in ranks)) for i in saving]
    macs_at, damage_at = np.concatenate(macs_of), np.concatenate(damage_of)
    return _Points(macs_at, damage_at, made_by, _hull(macs_at, damage_at))


def _hull(macs_at: np.ndarray, damage_at: np.ndarray) -> list[int]:
    points = [0]
    while True:
        now = points[-1]
        cheaper = np.flatnonzero(macs_at < macs_at[now])
        if not len(cheaper):
            return points
        saved = macs_at[now] - macs_at[cheaper]
        price = (damage_at[cheaper] - damage_at[now]) / saved
        # Of equal prices the longest step, or straight parts would be walked point by point.
        points.append(int(cheaper[np.lexsort((-saved, price))[0]]))


def _forms(layer: keras.Layer, its_calls: list[Call], convolution: Decomposition) -> list[_Form]:
    kernel = layer.kernel.numpy()
    before = macs(layer, its_calls)
    if not isinstance(layer, _CONVOLUTIONS):
        matrix = _matrix(layer, kernel)
        rows, columns = matrix.shape
        count = before // matrix.size
        terms = ((count, lambda r: r * rows), (count, lambda r: r * columns))
        return [_Form(layer, "svd", before, (_tail(matrix),), terms)]
    window = kernel.shape[:-2]
    possible = ["channel"]
    if math.prod(window) > 1:
        possible.append("tucker")
    if len(window) == 2 and min(window) > 1:
        possible.append("spatial")
    if convolution == "auto":
        wanted = possible
    else:
        wanted = [convolution if convolution in possible else "channel"]
    makers = {"channel": _channel_form, "spatial": _spatial_form, "tucker": _tucker_form}
    return [makers[kind](layer, its_calls, kernel, before) for kind in wanted]


def _channel_form(
    layer: keras.Layer, its_calls: list[Call], kernel: np.ndarray, before: int
) -> _Form:
    rows, filters = math.prod(kernel.shape[:-1]), kernel.shape[-1]
    outputs = _positions(layer, its_calls, "outputs")
    terms = ((outputs, lambda r: r * rows), (outputs, lambda r: r * filters))
    return _Form(layer, "channel", before, (_tail(kernel.reshape(rows, filters)),), terms)


def _spatial_form(
    layer: keras.Layer, its_calls: list[Call], kernel: np.ndarray, before: int
) -> _Form:
    height, width, channels, filters = kernel.shape
    between = 0  # Positions after the k×1 factor: new height, old width.
    for call in its_calls:
        new_height, _ = spatial(layer, call.outputs[0])
        _, old_width = spatial(layer, call.inputs[0])
        between += new_height * old_width
    terms = (
        (between, lambda r: r * height * channels),
        (_positions(layer, its_calls, "outputs"), lambda r: r * width * filters),
    )
    return _Form(layer, "spatial", before, (_tail(_spatial_matrix(kernel)),), terms)


def _tucker_form(
    layer: keras.Layer, its_calls: list[Call], kernel: np.ndarray, before: int
) -> _Form:
    *window, channels, filters = kernel.shape
    area = math.prod(window)
    outputs = _positions(layer, its_calls, "outputs")
    terms = (
        (_positions(layer, its_calls, "inputs"), lambda r, s: r * channels),
        (outputs, lambda r, s: area * r * s),
        (outputs, lambda r, s: s * filters),
    )
    tails = tuple(_tail(_unfolded(kernel, axis)) for axis in (-2, -1))
    return _Form(layer, "tucker", before, tails, terms)


def _positions(layer: keras.Layer, its_calls: list[Call], side: str) -> int:
    return sum(positions(layer, getattr(call, side)[0]) for call in its_calls)


def _factors(f: Factorization, taken: set[str]) -> list[tuple[keras.Layer, np.ndarray]]:
    """Returns the layers that stand for one, in order, with their kernels."""
    makers = {
        "svd": _dense_factors,
        "channel": _channel_factors,
        "spatial": _spatial_factors,
        "tucker": _tucker_factors,
    }
    return makers[f.kind](f.layer, f.ranks, taken)


_Factors = list[tuple[keras.Layer, np.ndarray]]


def _dense_factors(layer: keras.Layer, ranks: tuple[int, ...], taken: set[str]) -> _Factors:
    (rank,) = ranks
    kernel = layer.kernel.numpy()
    first, second = _split(_matrix(layer, kernel), rank)  # (rows, r), (r, columns)
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


def _channel_factors(layer: keras.Layer, ranks: tuple[int, ...], taken: set[str]) -> _Factors:
    (rank,) = ranks
    kernel = layer.kernel.numpy()
    first, second = _split(kernel.reshape(-1, kernel.shape[-1]), rank)
    name = unused_name(f"{layer.name}_basis", taken)
    basis = plain_copy(layer, name=name, filters=rank, **_LINEAR)
    return [(basis, first.reshape(*kernel.shape[:-1], rank)), _pointwise(layer, second)]


def _spatial_factors(layer: keras.Layer, ranks: tuple[int, ...], taken: set[str]) -> _Factors:
    (rank,) = ranks
    kernel = layer.kernel.numpy()
    height, width, channels, filters = kernel.shape
    first, second = _split(_spatial_matrix(kernel), rank)  # (h · in, r), (r, w · out)
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
        _left_vectors(_unfolded(kernel, axis), rank)
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


def _matrix(layer: keras.Layer, kernel: np.ndarray) -> np.ndarray:
    """A kernel as (what is summed, what is new)."""
    if not isinstance(layer, keras.layers.EinsumDense):
        return kernel.reshape(-1, kernel.shape[-1])
    inputs, labels, _ = einsum_labels(layer)
    order = sorted(range(len(labels)), key=lambda axis: labels[axis] not in inputs)
    rows = math.prod(
        size for label, size in zip(labels, kernel.shape, strict=True) if label in inputs
    )
    return kernel.transpose(order).reshape(rows, -1)


def _spatial_matrix(kernel: np.ndarray) -> np.ndarray:
    """(h, w, in, out) → (h · in, w · out)."""
    height, width, channels, filters = kernel.shape
    return kernel.transpose(0, 2, 1, 3).reshape(height * channels, width * filters)


def _unfolded(kernel: np.ndarray, axis: int) -> np.ndarray:
    """(…) → (channels of the axis, everything else)."""
    return np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)


def _tail(matrix: np.ndarray) -> np.ndarray:
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


def _left_vectors(matrix: np.ndarray, rank: int) -> np.ndarray:
    """(m, n) → (m, rank): the eigenvectors of the rows' Gram matrix with the largest values."""
    wide = matrix.astype(np.float64)
    _, vectors = np.linalg.eigh(wide @ wide.T)
    return vectors[:, ::-1][:, :rank]


def _split(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Truncated SVD, (m, n) → (m, rank), (rank, n); each takes half of the scale.

    As a projection on the vectors of the shorter side, which is many times faster than an SVD.
    """
    if matrix.shape[0] > matrix.shape[1]:
        right, left = _split(matrix.T, rank)
        return left.T, right.T
    vectors = _left_vectors(matrix, rank)
    others = vectors.T @ matrix  # Rows as long as the singular values.
    scale = np.sqrt(np.maximum(np.linalg.norm(others, axis=1), np.finfo(np.float32).tiny))
    return vectors * scale, others / scale[:, None]


def _unique(found: Iterator[keras.Layer]) -> list[keras.Layer]:
    return list({id(layer): layer for layer in found}.values())
