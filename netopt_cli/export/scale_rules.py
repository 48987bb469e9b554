"""Quantization scales that follow from others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ScaleRule:
    """Says that the scales of `target` are the product of those of `sources`.

    Attributes:
        name: Rules of one name hold alike.
        target: The `QuantizationParametersT` whose scales are derived.
        sources: One or two others.
    """

    name: str
    target: Any
    sources: tuple[Any, ...]

    def derived(self) -> np.ndarray:
        scales = self.sources[0].scale
        for source in self.sources[1:]:
            scales = scales * source.scale
        return scales

    def holds(self) -> bool:
        scales = self.derived()
        return len(scales) == len(self.target.scale) and scales.tobytes() == (
            self.target.scale.tobytes()
        )


def scale_rules(model: Any) -> list[ScaleRule]:
    """Lists the rules that may hold in a model, at most one for each tensor, each after those of
    its sources.

    The LiteRT 8-bit specification sets a bias' scale to input scale x weight scale, and lets
    operations that only move values, as pooling and reshaping, keep their input's scale.
    """
    found: list[ScaleRule] = []
    for graph in model.subgraphs or ():
        taken: set[int] = set()

        def add(name: str, target: Any, *sources: Any, taken: set[int] = taken) -> None:
            scaled = [each for each in (target, *sources) if each is not None]
            lengths = [0 if each.scale is None else len(each.scale) for each in scaled]
            fits = len(scaled) == len(sources) + 1 and lengths[0] == max(lengths[1:]) > 0
            if fits and min(lengths[1:]) in (1, lengths[0]) and id(target) not in taken:
                found.append(ScaleRule(name, target, sources))
            if target is not None:
                taken.add(id(target))

        for operator in graph.operators or ():
            inputs = _quantizations(graph, operator.inputs)
            outputs = _quantizations(graph, operator.outputs)
            for source in inputs:
                # A scale that something else was derived from cannot be derived any more.
                if source is not None and inputs.index(source) < 2:
                    taken.add(id(source))
            if len(inputs) > 2:
                add("bias scale", inputs[2], inputs[0], inputs[1])
            if inputs and outputs:
                add(f"scale of {operator.opcodeIndex}", outputs[0], inputs[0])
    return found


def _quantizations(graph: Any, tensors: Any) -> list[Any]:
    numbers = [] if tensors is None else tensors.tolist()
    known = range(len(graph.tensors))  # a damaged file names others
    return [graph.tensors[n].quantization if n in known else None for n in numbers]
