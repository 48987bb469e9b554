"""Ranges of the activations of a float32 LiteRT file, seen on samples.

    minmax      all values that were seen
    percentile  without the outermost ones: p % to (100 - p) % of the values (Krishnamoorthi, 2018)
    mse         the part of the range that gives the smallest mean squared rounding error

The input and the output keep all their values: an output cut off at the same value for two classes
would leave open which is larger.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_litert.schema_py_generated import TensorType

from netopt_cli.contracts import ExportRecipe
from netopt_cli.export.flatbuffer import read

_BINS = 2048
_SHARES = np.linspace(0.3, 1.0, 71)
"""Parts of the range that `mse` tries."""

Range = tuple[float, float]


class Histogram:
    """How often values fell into equal parts of a range.

    Args:
        low, high: The range, low < high.
    """

    def __init__(self, low: float, high: float) -> None:
        self.edges = np.linspace(low, high, _BINS + 1)
        self._counts = np.zeros(_BINS, np.int64)

    def add(self, values: np.ndarray) -> None:
        self._counts += np.histogram(values, self.edges)[0]

    def percentiles(self, percentile: float) -> Range:
        """Returns the values below which 100 - percentile and percentile % lie, to a bin."""
        cumulative = np.cumsum(self._counts) / self._counts.sum()
        low = np.searchsorted(cumulative, 1 - percentile / 100, side="right")
        high = np.searchsorted(cumulative, percentile / 100, side="left")
        return float(self.edges[low]), float(self.edges[high + 1])

    def least_error(self, bits: int) -> Range:
        """Returns the part of the range whose rounding to `bits` bits has the least mean squared
        error, values outside being moved to its ends."""
        values = (self.edges[:-1] + self.edges[1:]) / 2
        low, high = min(self.edges[0], 0.0), max(self.edges[-1], 0.0)
        errors = []
        for share in _SHARES:
            scale = share * (high - low) / (2**bits - 1)
            rounded = np.rint(np.clip(values, share * low, share * high) / scale) * scale
            errors.append(np.sum(self._counts * (values - rounded) ** 2))
        best = float(_SHARES[int(np.argmin(errors))])
        return best * low, best * high


def activation_ranges(
    content: bytes, samples: Sequence[np.ndarray], recipe: ExportRecipe, bits: int = 8
) -> dict[str, Range]:
    """Runs a float32 file on samples and returns the range of each of its float activations.

    Args:
        content: A file of one graph, without control flow.
        samples: float32 (1, *shape), at least one.
        bits: That the activations will have, for `mse`.

    Returns:
        Name of the tensor -> (lowest, highest) value.
    """
    watching = _Watching(content)
    limits: dict[str, Range] = {}
    for sample in samples:
        for name, values in watching.run(sample):
            low, high = float(values.min()), float(values.max())
            before = limits.get(name, (low, high))
            limits[name] = min(low, before[0]), max(high, before[1])
    if recipe.calibration == "minmax":
        return limits
    histograms = {
        name: Histogram(*limit)
        for name, limit in limits.items()
        if name not in watching.outside and limit[0] < limit[1]
    }
    for sample in samples:
        for name, values in watching.run(sample):
            if name in histograms:
                histograms[name].add(values)
    if recipe.calibration == "percentile":
        chosen = {n: h.percentiles(recipe.percentile) for n, h in histograms.items()}
    else:
        chosen = {name: h.least_error(bits) for name, h in histograms.items()}
    return limits | chosen


class _Watching:
    """A file whose activations can be looked at after each inference."""

    def __init__(self, content: bytes) -> None:
        # Without delegates, which would fuse operations and leave tensors between them empty.
        self._interpreter = Interpreter(
            model_content=content,
            num_threads=1,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        self._interpreter.allocate_tensors()
        graph = read(content).subgraphs[0]
        self._input = graph.inputs[0]
        written = {*graph.inputs, *(index for op in graph.operators for index in op.outputs)}
        self._tensors = {
            int(index): graph.tensors[index].name.decode()
            for index in sorted(written)
            if graph.tensors[index].type == TensorType.FLOAT32
        }
        self.outside = {self._tensors.get(int(i)) for i in (*graph.inputs, *graph.outputs)}

    def run(self, sample: np.ndarray) -> list[tuple[str, np.ndarray]]:
        self._interpreter.set_tensor(self._input, sample)
        self._interpreter.invoke()
        return [
            (name, self._interpreter.get_tensor(index)) for index, name in self._tensors.items()
        ]
