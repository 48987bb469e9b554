"""Which layer of a student learns from which layer of its teacher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import keras

from netopt_cli.errors import InputError, did_you_mean
from netopt_cli.graph.rebuild import activation_of, as_functional, is_graph

FeatureMethod = Literal["features", "attention", "relational", "similarity", "contrastive"]

_LINEAR = (None, "linear")
_NEEDS = {
    "features": "two layers of the same height and width, or two without",
    "attention": "maps (height, width, channels) in both networks",
    "relational": "a layer before the head in both networks",
    "similarity": "a layer before the head in both networks",
    "contrastive": "a layer before the head in both networks",
}


@dataclass(frozen=True)
class LayerPair:
    """The outputs of two layers, symbolic, (batch, …, channels)."""

    student: keras.KerasTensor
    teacher: keras.KerasTensor

    def __str__(self) -> str:
        return f"{_named(self.student)} learns from {_named(self.teacher)}"


def pair_layers(
    student: keras.Model,
    teacher: keras.Model,
    method: FeatureMethod,
    layers: Mapping[str, str] | Literal["auto"],
    *,
    where: str,
) -> list[LayerPair]:
    """Returns the pairs that `method` works on.

    `auto` looks at the outputs of activations. `features` takes the pair nearest to the middle of
    both networks whose positions are alike (a hint for the lower half, as in FitNets), `attention`
    the last pair of each height and width that both have, the others the last layer before the
    head.

    Args:
        layers: Name of a layer of the student -> name of one of the teacher, or `auto`.
        where: The key of `layers`, for messages.

    Raises:
        InputError: A layer is not there, or the shapes of a pair do not suit the method.
    """
    if layers != "auto":
        own, shown = _outputs(student), _outputs(teacher)
        pairs = [
            LayerPair(
                _find(name, own, student, where=where), _find(of, shown, teacher, where=where)
            )
            for name, of in layers.items()
        ]
        for pair in pairs:
            reason = _unfit(pair, method)
            if reason:
                raise InputError(f"{where}: '{pair}' is no pair for method={method}: {reason}")
        return pairs
    pairs = _choose(_features(student), _features(teacher), method)
    if not pairs:
        raise InputError(
            f"{where}=auto finds no pair for method={method}, which needs {_NEEDS[method]}. "
            f"Student: {_list(_features(student))}. Teacher: {_list(_features(teacher))}. "
            f"Name one by {where}={{student_layer: teacher_layer}}, or use method=logits"
        )
    return pairs


def _choose(
    own: list[keras.KerasTensor], shown: list[keras.KerasTensor], method: FeatureMethod
) -> list[LayerPair]:
    if method == "features":
        pairs = [
            (abs(_depth(i, own) - 0.5) + abs(_depth(j, shown) - 0.5), LayerPair(mine, theirs))
            for i, mine in enumerate(own)
            for j, theirs in enumerate(shown)
            if not _unfit(LayerPair(mine, theirs), method)
        ]
        return [min(pairs, key=lambda pair: pair[0])[1]] if pairs else []
    if method == "attention":
        last_own = {t.shape[1:3]: t for t in own if len(t.shape) == 4}
        last_shown = {t.shape[1:3]: t for t in shown if len(t.shape) == 4}
        both = [size for size in last_own if size in last_shown]
        pairs_of_sizes = [LayerPair(last_own[size], last_shown[size]) for size in both]
        if not both and last_own and last_shown:
            last = LayerPair([*last_own.values()][-1], [*last_shown.values()][-1])
            pairs_of_sizes = [last]  # The teacher's map is resized.
        return [pair for pair in pairs_of_sizes if not _unfit(pair, method)]
    return [LayerPair(own[-1], shown[-1])] if own and shown else []


def _depth(index: int, tensors: list[keras.KerasTensor]) -> float:
    """0 at the first, 1 at the last; the only one is in the middle."""
    return index / (len(tensors) - 1) if len(tensors) > 1 else 0.5


def _unfit(pair: LayerPair, method: FeatureMethod) -> str:
    """Says why two outputs do not suit a method; "" when they do."""
    own, shown = pair.student.shape, pair.teacher.shape
    if method == "features" and own[1:-1] != shown[1:-1]:
        return "a projection changes the channels alone, all other sizes must be equal"
    if method == "attention" and (len(own) != 4 or len(shown) != 4):
        return "attention is a map, both must be (height, width, channels)"
    if method == "attention" and min(own[1] * own[2], shown[1] * shown[2]) == 1:
        return "a single position has no map"
    if len(own) < 2 or len(shown) < 2:
        return "both need channels"
    return ""


def _outputs(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Returns by name, in order, the output of every layer of the outer graph that is called once
    and has one; what is inside of nested models has no tensor there."""
    graph = as_functional(model)
    tensors: dict[str, list[keras.KerasTensor]] = {op.name: [] for op in graph.operations}
    for nodes in graph._nodes_by_depth.values():
        for node in nodes:
            tensors[node.operation.name] += node.output_tensors
    return {
        op.name: tensors[op.name][0]
        for op in graph.operations
        if len(tensors[op.name]) == 1 and not isinstance(op, keras.layers.InputLayer)
    }


def _features(model: keras.Model) -> list[keras.KerasTensor]:
    """The outputs of activations in order, without the head; where there is none, of all layers
    with weights."""
    logits = as_functional(model).outputs[-1]
    outputs = [tensor for tensor in _outputs(model).values() if tensor is not logits]
    active = [tensor for tensor in outputs if _is_active(_layer(tensor))]
    chosen = active or [t for t in outputs if getattr(_layer(t), "weights", None)]
    return [tensor for tensor in chosen if len(tensor.shape) > 1]


def _is_active(layer: keras.Layer) -> bool:
    return not is_graph(layer) and activation_of(layer) not in _LINEAR


def _find(
    name: str, outputs: Mapping[str, keras.KerasTensor], model: keras.Model, *, where: str
) -> keras.KerasTensor:
    if name not in outputs:
        raise InputError(
            f"{where}: model '{model.name}' has no layer '{name}' with one output."
            f"{did_you_mean(name, outputs)}"
        )
    return outputs[name]


def _layer(tensor: keras.KerasTensor) -> keras.Layer:
    return tensor._keras_history.operation


def _named(tensor: keras.KerasTensor) -> str:
    return f"{_layer(tensor).name} {'x'.join(str(size) for size in tensor.shape[1:])}"


def _list(tensors: Iterable[keras.KerasTensor]) -> str:
    return ", ".join(map(_named, tensors)) or "none"
