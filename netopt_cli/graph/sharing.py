"""Cross-layer parameter sharing: equal layers become one layer that is called several times."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import keras
import numpy as np

from netopt_cli.errors import InputError
from netopt_cli.graph.calls import Edges, graphs
from netopt_cli.graph.naming import left_lines, require_matches, unused_name
from netopt_cli.graph.rebuild import is_graph, layers, plain_copy, rebuild

Start = Literal["first", "mean"]
Normalization = Literal["shared", "per_call"]

_POOLED = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)


@dataclass(frozen=True, eq=False)
class Group:
    """Layers of one graph that become one, in the order in which they are called."""

    layers: list[keras.Layer]

    @property
    def saved(self) -> int:
        """Parameters that are saved."""
        return (len(self.layers) - 1) * _size(self.layers[0])

    def __str__(self) -> str:
        first, *others = (layer.name for layer in self.layers)
        return f"{first} stands for {', '.join(others)} too, {self.saved:,} parameters less"


def choose_groups(
    model: keras.Model,
    *,
    patterns: Sequence[str] = ("*",),
    most: int | None = None,
    normalization: Normalization = "per_call",
) -> tuple[list[Group], list[str]]:
    """Finds the layers that can share their weights.

    Those are layers with a kernel, of one class, configuration and shape of weights, in one graph:
    the layers of a nested model share among themselves.

    Args:
        model: Functional or Sequential; it is not changed.
        patterns: Of layer names. Only layers that match the same one share; the first that matches
            counts.
        most: At most so many layers share, neighbours first; None sets no limit.
        normalization: `per_call`: the BatchNormalizations that follow the layers of a group stay,
            one for each call. `shared`: they become one as well, which has one mean and variance
            for calls that differ in both.

    Returns:
        The groups in the model's order, and lines that say which layers with a kernel share nothing
        and why.

    Raises:
        InputError: A pattern matches nothing, or no two layers can share.
    """
    found: list[Group] = []
    left: list[tuple[str, str]] = []
    edges = Edges(model)
    names = []
    for graph in graphs(model):
        alike: dict[tuple[Any, ...], list[keras.Layer]] = defaultdict(list)
        for layer in graph.operations:
            if not _has_kernel(layer):
                continue
            names.append(layer.name)
            chosen = next((p for p in patterns if fnmatchcase(layer.name, p)), None)
            if chosen is None:
                left.append((layer.name, "no pattern matches"))
            else:
                alike[chosen, _signature(layer)].append(layer)
        for members in alike.values():
            for start in range(0, len(members), most or len(members)):
                part = members[start : start + (most or len(members))]
                if len(part) > 1:
                    found.append(Group(part))
                else:
                    left.append((part[0].name, "no other layer is equal"))
    require_matches(names, patterns, where="opt.share.patterns")
    if not found:
        raise InputError(
            f"opt.share finds no two layers of '{model.name}' that can share their weights: "
            f"{'; '.join(left_lines(left)) or 'no layer has a kernel'}"
        )
    if normalization == "shared":
        found += [norms for group in found if (norms := _norms_after(group, edges)) is not None]
    return found, left_lines(left)


def share(model: keras.Model, groups: Sequence[Group], *, start: Start = "first") -> keras.Model:
    """Rebuilds a model in which the first layer of each group stands for all of it.

    The converter to LiteRT folds a BatchNormalization into the convolution before it. Where each
    call of a shared one has its own, the float32 file would hold a kernel for each call again. A
    max pooling over one element, which changes nothing, keeps the two apart.

    Args:
        start: The weights of a group begin as those of its first layer, or as the mean of all.
    """
    group_of = {id(layer): group for group in groups for layer in group.layers}
    made: dict[int, keras.Layer] = {}
    taken = {layer.name for layer in layers(model)}
    pools = {
        id(norm): _identity(layer, unused_name(f"{norm.name}_unfused", taken))
        for layer, norm in _norms_of_calls(groups, Edges(model))
        if id(norm) not in group_of
    }

    def clone(layer: keras.Layer) -> keras.Layer | None:
        group = group_of.get(id(layer))
        if group is None:
            return None
        if id(group) not in made:
            made[id(group)] = plain_copy(group.layers[0])
        return made[id(group)]

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if id(layer) in pools:
            args = (pools[id(layer)](args[0]), *args[1:])
        return new_layer(*args, **kwargs)

    rebuilt, _ = rebuild(model, clone=clone, call=call)
    for group in groups:
        values = [layer.get_weights() for layer in group.layers]
        if start == "first":
            made[id(group)].set_weights(values[0])
        else:
            made[id(group)].set_weights(
                [np.mean(each, axis=0) for each in zip(*values, strict=True)]
            )
    return rebuilt


def _has_kernel(layer: keras.Layer) -> bool:
    return (
        isinstance(layer, keras.Layer)
        and not is_graph(layer)
        and any(len(weight.shape) >= 2 for weight in layer.weights)
    )


def _norms_of_calls(
    groups: Sequence[Group], edges: Edges
) -> Iterator[tuple[keras.Layer, keras.Layer]]:
    """Yields the convolutions of the groups that have a norm of their own behind, and that norm."""
    for group in groups:
        for layer in group.layers:
            norm = edges.only_user(layer)
            if (
                isinstance(layer, _POOLED)
                and type(norm) is keras.layers.BatchNormalization
                and edges.places(norm) == 1
            ):
                yield layer, norm


def _identity(layer: keras.Layer, name: str) -> keras.Layer:
    """A pooling over one element of what a convolution puts out."""
    flat = len(layer.kernel_size) == 1
    pool = keras.layers.MaxPooling1D if flat else keras.layers.MaxPooling2D
    return pool(1, data_format=layer.data_format, name=name)


def _norms_after(group: Group, edges: Edges) -> Group | None:
    """The norms that follow the layers of a group, when each has its own and they are alike."""
    norms = [edges.only_user(layer) for layer in group.layers]
    found = [norm for norm in norms if type(norm) is keras.layers.BatchNormalization]
    each_its_own = len(found) == len(norms) and all(edges.places(norm) == 1 for norm in found)
    return Group(found) if each_its_own and len(set(map(_signature, found))) == 1 else None


def _signature(layer: keras.Layer) -> tuple[Any, ...]:
    """What two layers must have in common to share weights."""
    config = {
        key: value
        for key, value in layer.get_config().items()
        if key != "name" and not key.endswith("_initializer")
    }
    return (type(layer), repr(config), tuple(tuple(weight.shape) for weight in layer.weights))


def _size(layer: keras.Layer) -> int:
    return sum(math.prod(weight.shape) for weight in layer.weights)
