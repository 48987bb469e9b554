"""Reading which channels of a Keras functional model can be removed, and what goes with each.

    graph = read_channels(model)
    for group in graph.groups:
        scores = np.abs(group.rows(values_of(model), roles=("produces",))).sum(axis=1)
    smaller = surgery.remove(model, graph, {"conv_1": [0, 3]})

Labels (`netopt_cli.graph.labels`) flow through the graph from the inputs to the outputs; a rule
(`netopt_cli.graph.rules`) for each layer says how. What has no rule is left alone and its inputs
are protected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from netopt_cli.graph.labels import FIXED, Ids, Labels, fixed
from netopt_cli.graph.rebuild import as_functional, is_graph, layers
from netopt_cli.graph.rule_call import Call, NoRule, Notes, Role, WeightAxis
from netopt_cli.graph.rules import HOOK, rule_of


@dataclass(frozen=True)
class Member:
    """The part that the units of a group have in one axis of one weight.

    Attributes:
        path: Of the weight, as in `values_of`.
        layer: Name of its layer.
        axis: The axis of the weight.
        role: What the axis has to do with the units.
        indices: Int (size, k): the k indices of the axis that belong to each unit.
    """

    path: str
    layer: str
    axis: int
    role: Role
    indices: np.ndarray


@dataclass(frozen=True)
class Group:
    """Units that are removed alike: each has its part in the same axes of the same weights.

    Attributes:
        name: The first layer that computes the units, with `#2` … where it has several groups.
        size: The number of units, two or more; at least one must stay.
        members: Their parts in the weights, in the model's order.
        ids: Int (size,), their labels.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    ids: Ids = field(repr=False)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that compute the units."""
        return tuple(dict.fromkeys(m.layer for m in self.members if m.role == "produces"))

    def rows(
        self,
        values: Mapping[str, np.ndarray],
        roles: Sequence[Role] = ("produces", "consumes", "follows"),
    ) -> np.ndarray:
        """Returns the values that belong to each unit, (size, n).

        Args:
            values: Path -> an array of the shape of that weight: the weights themselves, their
                gradients, …
            roles: Of the parts to take.
        """
        parts = [
            # (size, k, rest) -> (size, k * rest)
            np.moveaxis(values[m.path], m.axis, 0)[m.indices].reshape(self.size, -1)
            for m in self.members
            if m.role in roles
        ]
        return np.concatenate(parts, axis=1) if parts else np.zeros((self.size, 0), np.float32)


@dataclass(frozen=True)
class CallNote:
    """What surgery has to know about one call of a layer."""

    inputs: list[Labels]
    outputs: list[Labels]
    over_kept: bool
    rewritten: Any


@dataclass(frozen=True)
class ChannelGraph:
    """What can be removed from a model, and what not.

    Attributes:
        groups: In the model's order; their names differ.
        protected: (layer name, reason) of each layer that keeps all its units or has no rule.
        notes: What the rules said.
        calls: id of a layer -> what was said about each of its calls.
        paths: Path -> weight.
    """

    groups: tuple[Group, ...]
    protected: tuple[tuple[str, str], ...]
    model: keras.Model = field(repr=False)
    notes: Notes = field(repr=False)
    calls: Mapping[int, list[CallNote]] = field(repr=False)
    paths: Mapping[str, keras.Variable] = field(repr=False)

    def group(self, name: str) -> Group:
        return next(group for group in self.groups if group.name == name)


def values_of(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns path -> value of every weight."""
    return {path: variable.numpy() for path, variable in weights_by_path(model).items()}


def weights_by_path(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns path -> variable of every weight, in the model's order.

    Layers of the same name in two nested models have the same path: the later ones get `#2`, ….
    """
    found: dict[str, keras.Variable] = {}
    seen: Counter[str] = Counter()
    for variable in model.weights:
        seen[variable.path] += 1
        count = seen[variable.path]
        found[f"{variable.path}#{count}" if count > 1 else variable.path] = variable
    return found


def read_channels(model: keras.Model) -> ChannelGraph:
    """Reads the channels of a model. Its inputs and outputs are fixed.

    Raises:
        ArchError: When the model is subclassed or not built.
    """
    reader = _Reader()
    graph = as_functional(model)
    outputs = reader.walk(graph, [Labels.fixed(tensor.shape) for tensor in graph.inputs])
    for labels in outputs:
        for ids in labels.axes:
            reader.notes.unions.protect(ids, "it gives the outputs of the model")
    paths = weights_by_path(model)
    groups = _groups(model, reader, paths)
    return ChannelGraph(
        groups=groups,
        protected=tuple(dict.fromkeys((*reader.left, *_held(model, reader, groups)))),
        model=model,
        notes=reader.notes,
        calls=reader.calls,
        paths=paths,
    )


class _Reader:
    """Carries labels through a graph, nested models included."""

    def __init__(self) -> None:
        self.notes = Notes()
        self.calls: dict[int, list[CallNote]] = {}
        self.left: list[tuple[str, str]] = []
        self.tensors: list[Ids] = []
        self._nested: dict[int, tuple[list[Labels], list[Labels]]] = {}

    def walk(self, graph: keras.Model, inputs: list[Labels]) -> list[Labels]:
        known = {
            id(tensor): one for tensor, one in zip(graph.inputs, inputs, strict=True)
        }  # fmt: skip
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                args, kwargs = node.arguments.fill_in(known)
                outputs = self._call(node, args, kwargs)
                known |= {id(t): one for t, one in zip(node.outputs, outputs, strict=True)}
        return [known[id(tensor)] for tensor in graph.outputs]

    def _call(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Labels]:
        layer = node.operation
        call = Call(layer, args, kwargs, [t.shape for t in node.outputs], self.notes)
        if is_graph(layer):
            return self._enter(call)
        try:
            outputs = self._apply_rule(call)
        except NoRule as missing:
            self.left.append((layer.name, str(missing)))
            outputs = self._leave(call)
        for labels in outputs:
            for ids in labels.axes:
                if len(ids) == 1:
                    call.protect(ids, f"'{layer.name}' gives a single one of them")
        self.tensors += [ids for labels in outputs for ids in labels.axes]
        note = CallNote(call.inputs, outputs, call.over_kept, call.rewritten)
        self.calls.setdefault(id(layer), []).append(note)
        return outputs

    def _apply_rule(self, call: Call) -> list[Labels]:
        rule = rule_of(call.layer)
        if rule is None:
            kind = type(call.layer)
            raise NoRule(
                f"no rule for {kind.__module__}.{kind.__qualname__}: give the class a method "
                f"{HOOK}, or register one"
            )
        outputs = keras.tree.flatten(rule(call))
        shapes = [tuple(size or 1 for size in shape) for shape in call.shapes]
        if [one.shape for one in outputs] != shapes:
            raise NoRule(
                f"its rule gives labels of shapes {[one.shape for one in outputs]}, "
                f"the outputs have {shapes}"
            )
        return outputs

    def _leave(self, call: Call) -> list[Labels]:
        """Protects the inputs of a layer without a rule, and what was said of its weights."""
        reason = f"'{call.layer.name}' takes it in and is left alone"
        for labels in call.inputs:
            for ids in labels.axes:
                self.notes.unions.protect(ids, reason)
        for variable in getattr(call.layer, "weights", ()):
            for axis in self.notes.weights.get(id(variable), ()):
                if axis is not None:
                    self.notes.unions.protect(axis.ids, reason)
        return [Labels.fixed(shape) for shape in call.shapes]

    def _enter(self, call: Call) -> list[Labels]:
        """Walks through a nested model; called again, it gets the same channels as before."""
        graph = as_functional(call.layer)
        if id(call.layer) in self._nested:
            before, outputs = self._nested[id(call.layer)]
            for old, new in zip(before, call.inputs, strict=True):
                for axis in range(old.rank):
                    if len(old[axis]) == len(new[axis]):
                        call.merge(old[axis], new[axis])
                    else:
                        for ids in (old[axis], new[axis]):
                            call.protect(ids, f"'{call.layer.name}' is called with two sizes")
        else:
            inputs = [
                _as_declared(call, labels, tensor.shape)
                for labels, tensor in zip(call.inputs, graph.inputs, strict=True)
            ]
            outputs = self.walk(graph, inputs)
            self._nested[id(call.layer)] = (call.inputs, outputs)
        return [
            _as_declared(call, labels, shape)
            for labels, shape in zip(outputs, call.shapes, strict=True)
        ]


def _as_declared(call: Call, labels: Labels, shape: tuple[int | None, ...]) -> Labels:
    """Returns labels in a shape where other sizes are unknown."""
    axes = []
    for ids, size in zip(labels.axes, shape, strict=True):
        if len(ids) == (size or 1):
            axes.append(ids)
        else:
            call.protect(ids, f"'{call.layer.name}' does not know the size of their axis")
            axes.append(fixed(size))
    return Labels(tuple(axes))


def _groups(
    model: keras.Model, reader: _Reader, paths: Mapping[str, keras.Variable]
) -> tuple[Group, ...]:
    unions = reader.notes.unions
    owners = _owners(model)
    # Each label's part in every axis of every weight, and of every tensor: a slice of a tensor
    # must not lose all it has while the rest of it stays.
    parts: dict[int, list[tuple[Any, int]]] = {}
    axes: list[tuple[str, int, WeightAxis, Ids]] = []
    for path, variable in paths.items():
        for number, axis in enumerate(reader.notes.weights.get(id(variable), ())):
            if axis is not None and axis.ids.any():
                roots = unions.roots(axis.ids)
                _count(parts, len(axes), roots)
                axes.append((path, number, axis, roots))
    distinct = {id(ids): ids for ids in reader.tensors if ids.any()}
    for number, ids in enumerate(distinct.values()):
        _count(parts, ("tensor", number), unions.roots(ids))

    alike: dict[tuple[tuple[Any, int], ...], list[int]] = {}
    for label, found in parts.items():
        alike.setdefault(tuple(found), []).append(label)
    groups = []
    names: Counter[str] = Counter()
    for signature, labels in alike.items():
        if len(labels) == 1:
            continue  # The last one stays.
        ids = np.array(labels)
        members = tuple(
            Member(path, owners[path], number, axis.role, _places(roots, ids))
            for path, number, axis, roots in (
                axes[part] for part, _ in signature if isinstance(part, int)
            )
        )
        if not members:
            continue
        name = next((m.layer for m in members if m.role == "produces"), members[0].layer)
        names[name] += 1
        if names[name] > 1:
            name = f"{name}#{names[name]}"
        groups.append(Group(name, len(ids), members, ids))
    return tuple(groups)


def _count(parts: dict[int, list[tuple[Any, int]]], key: Any, roots: Ids) -> None:
    labels, counts = np.unique(roots, return_counts=True)
    for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
        if label != FIXED:
            parts.setdefault(label, []).append((key, count))


def _places(roots: Ids, ids: Ids) -> np.ndarray:
    """Returns where each label stands, (labels, k)."""
    order = np.argsort(roots, kind="stable")
    first = np.searchsorted(roots[order], ids)
    count = int(np.searchsorted(roots[order], ids[0], side="right") - first[0])
    return order[first[:, None] + np.arange(count)]


def _owners(model: keras.Model) -> dict[str, str]:
    """Returns path -> name of the layer that the weight belongs to."""
    names = {
        id(variable): layer.name
        for layer in layers(model)
        for variable in getattr(layer, "weights", ())
    }
    return {path: names[id(variable)] for path, variable in weights_by_path(model).items()}


def _held(model: keras.Model, reader: _Reader, groups: tuple[Group, ...]) -> list[tuple[str, str]]:
    """Returns the layers that compute units of which none can be removed, and why."""
    unions = reader.notes.unions
    names = {id(layer): layer.name for layer in layers(model)}
    removable = {label for group in groups for label in group.ids.tolist()}
    held = []
    for (layer, _), ids in reader.notes.units.items():
        roots = unions.roots(ids)
        if layer not in names or not removable.isdisjoint(roots.tolist()):
            continue
        if len(ids) == 1:
            held.append((names[layer], "it has a single unit"))
        elif roots.any():
            held.append((names[layer], "its units hang together as one"))
        else:
            held.append((names[layer], unions.reason(int(ids[0]))))
    return held
