"""The same figures for each format that a network is exported to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from netopt_cli.contracts import Network, Timing
from netopt_cli.dataset import Dataset
from netopt_cli.export import saved_model
from netopt_cli.export.formats import Format
from netopt_cli.export.litert import FrozenGraph
from netopt_cli.export.onnx import to_onnx
from netopt_cli.measure.measurement import (
    Measurement,
    Runner,
    calibration_samples,
    compare,
    gzip_size,
    score,
)
from netopt_cli.measure.probe import probe

_PACKAGES: dict[Format, str] = {
    "litert": "ai-edge-litert",
    "onnx": "onnxruntime",
    "saved_model": "tensorflow",
}


@dataclass(frozen=True)
class Export:
    """A network in a format, to be written.

    Attributes:
        scheme: How the file computes: `float32` or `int8`.
        write: Writes the file, or for `saved_model` fills the directory, at a path.
        notes: Where it is not what the network's recipe asks for.
    """

    format: Format
    scheme: str
    write: Callable[[Path], object]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportMeasurement:
    """The figures of one exported file; the fields are columns of `exports.csv`.

    Attributes:
        scheme: How the file computes: `float32`, `int8`, …
        runtime: The package that ran and timed it.
        version: Of the runtime.
        score: The figure of the task that counts, on the test split.
        size_bytes: Of the file; of a directory the sum over its files.
        size_gzip_bytes: Each file in gzip, level 9, summed.
        latency_ms_median: Of one inference at batch 1.
        latency_ms_p90: Its 90th percentile.
        peak_memory_bytes: Growth of the memory of the process that timed the file.
        parity_max_abs: Largest difference of logits between the Keras model and the file.
    """

    format: Format
    scheme: str
    runtime: str
    version: str
    score: float
    size_bytes: int
    size_gzip_bytes: int
    latency_ms_median: float
    latency_ms_p90: float
    peak_memory_bytes: int
    parity_max_abs: float


def export_as(
    format_: Format, network: Network, graph: FrozenGraph, data: Dataset, seed: int
) -> Export:
    """Exports to a format other than `litert`.

    Args:
        graph: The trace of the network.
        seed: Chooses the calibration samples among `data.train`.

    Raises:
        RunError: See `export.onnx.to_onnx`.
    """
    recipe = network.recipe
    scheme = "float32"
    write: Callable[[Path], object] = partial(saved_model.save, network.model)
    if format_ == "onnx":
        file = to_onnx(graph, recipe, calibration_samples(network, data, seed))
        scheme = file.scheme
        write = partial(Path.write_bytes, data=file.content)
    notes = []
    if scheme != recipe.scheme:
        notes.append(f"{format_} is {scheme}, not {recipe.scheme}")
    elif scheme == "int8" and recipe.calibration != "minmax":
        notes.append(f"{format_} is calibrated by minmax, not {recipe.calibration}")
    return Export(format_, scheme, write, tuple(notes))


def of_litert(network: Network, measured: Measurement) -> ExportMeasurement:
    """What is known of the LiteRT file already."""
    return ExportMeasurement(
        format="litert",
        scheme=network.recipe.scheme,
        runtime=_PACKAGES["litert"],
        version=version(_PACKAGES["litert"]),
        score=measured.score,
        size_bytes=measured.size_bytes,
        size_gzip_bytes=measured.size_gzip_bytes,
        latency_ms_median=measured.latency_ms_median,
        latency_ms_p90=measured.latency_ms_p90,
        peak_memory_bytes=measured.peak_memory_bytes,
        parity_max_abs=measured.parity_max_abs,
    )


def measure_export(
    export: Export, path: Path, network: Network, data: Dataset, timing: Timing
) -> ExportMeasurement:
    """Loads what `export` wrote at `path`, compares it with its network, scores and times it.

    Args:
        timing: Its `device` is LiteRT's alone.

    Raises:
        ParityError: The file does not compute what the network computes.
        RunError: The file cannot be loaded or timed.
    """
    runner = _runner(export.format, path)
    # A network that quantizes itself is a step off wherever float rounding tips a value over.
    rounds = export.scheme != "float32" or network.recipe.trained_ranges
    parity = compare(network, data, runner, "int8" if rounds else "float32")
    timed = probe(path, timing, export.format)
    contents = contents_of(path)
    return ExportMeasurement(
        format=export.format,
        scheme=export.scheme,
        runtime=_PACKAGES[export.format],
        version=version(_PACKAGES[export.format]),
        score=score(runner, data).scores[data.task.metric],
        size_bytes=sum(map(len, contents)),
        size_gzip_bytes=sum(map(gzip_size, contents)),
        latency_ms_median=timed.latency_ms_median,
        latency_ms_p90=timed.latency_ms_p90,
        peak_memory_bytes=timed.peak_memory_bytes,
        parity_max_abs=parity["max_abs"],
    )


def _runner(format_: Format, path: Path) -> Runner:
    if format_ == "onnx":
        from netopt_cli.measure.onnx_runtime import OnnxRunner  # of an optional extra

        return OnnxRunner(path, os.cpu_count() or 1)
    from netopt_cli.measure.saved_model_runtime import SavedModelRunner

    return SavedModelRunner(path)


def contents_of(path: Path) -> list[bytes]:
    """The content of a file, or of each file in a directory."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return [file.read_bytes() for file in files if file.is_file()]
