"""Choosing which layers of a network to factorize, how, and to which ranks."""

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
from netopt_cli.graph.matrices import matrix_of, spatial_matrix, tail_of, unfolded
from netopt_cli.graph.naming import left_lines, matches, require_matches
from netopt_cli.graph.rebuild import layers

RankBy = Literal["energy", "ratio", "macs"]
Decomposition = Literal["auto", "channel", "spatial", "tucker"]
Damage = Callable[[np.ndarray], np.ndarray]
"""Fractions of a kernel's energy that are lost -> what that costs; never falling, 0 at 0."""

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D)
_SUPPORTED = (*_CONVOLUTIONS, keras.layers.Dense, keras.layers.EinsumDense)
_NO_ENERGY = 1e-6


@dataclass(frozen=True, eq=False)
class Factorization:
    """What one layer becomes.

    Attributes:
        kind: `svd` (dense layers), `channel`, `spatial` or `tucker` (convolutions), `rows`
            (embeddings).
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
    embeddings: float | None = None,
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
        embeddings: Fraction of its full rank that each embedding keeps, where that has fewer
            weights; a product more for each look-up. None leaves them alone.
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
    tables = [one for one in _unique(layers(model)) if type(one) is keras.layers.Embedding]
    names = [layer.name for layer in (*multiplying, *(tables if embeddings else ()))]
    require_matches(names, exclude, where="opt.lowrank.exclude")
    for layer in multiplying:
        reason = "excluded" if matches(layer.name, exclude) else unsupported(layer)
        if reason:
            left.append((layer.name, reason))
        else:
            candidates.append((layer, _forms(layer, its_calls[id(layer)], convolution)))
    thinner = [
        _thinner(table, its_calls[id(table)], embeddings)
        for table in tables
        if embeddings and not matches(table.name, exclude)
    ]
    of_tables = [found for found in thinner if found is not None]
    if not (candidates or of_tables):
        raise InputError(
            f"opt.lowrank finds no layer to factorize in '{model.name}': "
            f"{'; '.join(left_lines(left)) or 'it has no dense layer or convolution'}"
        )

    chosen: dict[int, Factorization]
    if rank_by == "macs" and candidates:
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
    found = [chosen[id(layer)] for layer in multiplying if id(layer) in chosen]
    return [*of_tables, *found], left_lines(left)


def _thinner(
    table: keras.layers.Embedding, its_calls: list[Call], ratio: float
) -> Factorization | None:
    """An embedding of so much of its full rank; None where it would not be smaller."""
    weights = table.embeddings.numpy()
    rows, width = weights.shape
    rank = max(1, round(ratio * min(rows, width)))
    if rank * (rows + width) >= rows * width:
        return None
    look_ups = sum(math.prod(call.outputs[0][:-1]) for call in its_calls)
    energy = float(1.0 - tail_of(weights)[rank])
    params = (rows * width, rank * (rows + width))
    return Factorization(table, "rows", (rank,), energy, (0, look_ups * rank * width), params)


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
    tail = tail_of(matrix_of(layer, layer.kernel.numpy()))
    full = len(tail) - 1
    return np.array([tail[max(1, round(rank * full))] for rank in ranks])


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
        matrix = matrix_of(layer, kernel)
        rows, columns = matrix.shape
        count = before // matrix.size
        terms = ((count, lambda r: r * rows), (count, lambda r: r * columns))
        return [_Form(layer, "svd", before, (tail_of(matrix),), terms)]
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
    return _Form(layer, "channel", before, (tail_of(kernel.reshape(rows, filters)),), terms)


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
    return _Form(layer, "spatial", before, (tail_of(spatial_matrix(kernel)),), terms)


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
    tails = tuple(tail_of(unfolded(kernel, axis)) for axis in (-2, -1))
    return _Form(layer, "tucker", before, tails, terms)


def _positions(layer: keras.Layer, its_calls: list[Call], side: str) -> int:
    return sum(positions(layer, getattr(call, side)[0]) for call in its_calls)


def _unique(found: Iterator[keras.Layer]) -> list[keras.Layer]:
    return list({id(layer): layer for layer in found}.values())
