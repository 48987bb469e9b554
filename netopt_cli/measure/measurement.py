"""Everything that is said about a network after a stage, read off its exported file."""

from __future__ import annotations

import gzip
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.contracts import ExportRecipe, Network, Scheme, Timing
from netopt_cli.dataset import Dataset, fitting_batch
from netopt_cli.export.litert import FrozenGraph, freeze, has_control_flow, to_litert
from netopt_cli.export.packed import pack
from netopt_cli.export.strip import strip
from netopt_cli.graph.quantizers import quantized_weights
from netopt_cli.graph.schemes import weight_bits
from netopt_cli.measure.confusion import confusion
from netopt_cli.measure.file_weights import FileWeight, read_file_weights, sparsity
from netopt_cli.measure.macs import count_macs
from netopt_cli.measure.parity import PARITY_SAMPLES, check_parity
from netopt_cli.measure.probe import probe
from netopt_cli.measure.runtime import LitertRunner

_BATCH = 512

Batch = tuple[np.ndarray, np.ndarray]
"""(x, labels), x normalized."""


@dataclass(frozen=True)
class Measurement:
    """The numbers of one network: the fields but `details` and `packed` are columns of
    `metrics.csv`, and so is each of the `scores`.

    Attributes:
        scores: The figures of the task, of the file on the test split; accuracy of classes.
        loss: Mean loss of the file's outputs, on the test split.
        params: Of the Keras model, trainable or not.
        nonzero_params: Those that are not zero.
        sparsity: Fraction of zeros among the file's weights (constant tensors of rank ≥ 2).
        macs: Multiply-accumulates of one inference; None when `details` lists some as uncounted.
        size_bytes: Of the file.
        size_gzip_bytes: Of the file in gzip, level 9.
        size_packed_bytes: Of `packed`.
        latency_ms_median: Of one inference at batch 1.
        latency_ms_p90: Its 90th percentile.
        peak_memory_bytes: Growth of the memory of the process that timed the file.
        parity_max_abs: Largest difference of logits between the Keras model and the file.
        details: What the record keeps besides: the layers, and how each number was measured.
        packed: The file recoded by `export.packed`.
    """

    scores: Mapping[str, float]
    loss: float
    params: int
    nonzero_params: int
    sparsity: float
    macs: int | None
    size_bytes: int
    size_gzip_bytes: int
    size_packed_bytes: int
    latency_ms_median: float
    latency_ms_p90: float
    peak_memory_bytes: int
    parity_max_abs: float
    details: dict[str, Any] = field(repr=False)
    packed: bytes = field(repr=False)

    @property
    def score(self) -> float:
        """The figure that counts."""
        return next(iter(self.scores.values()))


class Runner(Protocol):
    """A file that its runtime has loaded."""

    def logits(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """(n, *shape) -> float32 outputs (n, …), logits of classes as a rule, for each batch."""
        ...


def export_network(network: Network, data: Dataset, seed: int = 0) -> tuple[FrozenGraph, bytes]:
    """Exports to LiteRT by the network's own recipe.

    Args:
        seed: Chooses the calibration samples among `data.train`.

    Raises:
        ConfigError, RunError: See `export.litert.to_litert`.
    """
    graph = freeze(network.model)
    calibration = calibration_samples(network, data, seed)
    return graph, strip(to_litert(graph, network.recipe, calibration))


def measure(
    network: Network,
    data: Dataset,
    timing: Timing,
    file: Path,
    graph: FrozenGraph,
    *,
    workers: int | None = None,
) -> Measurement:
    """Measures `file`, which `export_network` made of `network`. Reads the test split once.

    Args:
        timing: How the file is timed. Accuracy is taken on the same device.
        graph: The trace that the file was made of.
        workers: Interpreters that share the test samples; as many as CPUs by default.

    Raises:
        ParityError: The file does not compute what the model computes.
        RunError: The file cannot be loaded or timed.
    """
    content = file.read_bytes()
    runner = LitertRunner(content, timing, workers or os.cpu_count() or 1)
    parity = compare(network, data, runner, network.recipe.scheme)
    timed = probe(file, timing, samples=_timed_samples(graph, data))
    scored = score(runner, data)
    weights = read_file_weights(content)
    layers = layer_rows(network.model, weights)
    macs = count_macs(graph.traced.graph)
    packed = pack(content)
    return Measurement(
        scores=scored.scores,
        loss=scored.loss,
        params=network.model.count_params(),
        nonzero_params=sum(layer["nonzero"] for layer in layers),
        sparsity=sparsity(weights),
        macs=macs.total,
        size_bytes=len(content),
        size_gzip_bytes=gzip_size(content),
        size_packed_bytes=len(packed),
        latency_ms_median=timed.latency_ms_median,
        latency_ms_p90=timed.latency_ms_p90,
        peak_memory_bytes=timed.peak_memory_bytes,
        parity_max_abs=parity["max_abs"],
        details={
            "layers": layers,
            "macs_by_operation": macs.by_op,
            "macs_uncounted": macs.uncounted,
            "parity": parity,
            **scored.details,
            "recipe": network.recipe.scheme,
            "weight_bits": dict(network.recipe.weight_bits),
            "calibration": network.recipe.calibration,
            "calibration_samples": min(network.recipe.calibration_samples, len(data.train)),
            "runtime": f"ai-edge-litert {version('ai-edge-litert')}",
            "device": timing.device,
            "threads": timing.threads,
            "latency_ms_mean": timed.latency_ms_mean,
            "warmup_runs": timed.warmup_runs,
            "timed_runs": timed.timed_runs,
        },
        packed=packed,
    )


def _timed_samples(graph: FrozenGraph, data: Dataset) -> np.ndarray | None:
    """Samples to time a file on whose time depends on them: it has branches or loops. They are of
    the validation split, in its order."""
    if not has_control_flow(graph):
        return None
    return next(data.normalized_batches(data.validation, _BATCH))[0]


def gzip_size(content: bytes) -> int:
    """Bytes after gzip at its highest level, without a time in the header."""
    return len(gzip.compress(content, compresslevel=9, mtime=0))


def calibration_samples(network: Network, data: Dataset, seed: int) -> Iterator[np.ndarray]:
    """Yields as many normalized training samples as the network's recipe asks for, float32
    (1, *shape); the seed chooses them."""
    chosen = _calibration_choice(network.recipe, data, seed)
    if len(chosen):
        for x, _ in data.normalized_batches(data.train.take(chosen), 1):
            yield x


def _calibration_choice(recipe: ExportRecipe, data: Dataset, seed: int) -> np.ndarray:
    """Indices of training samples: any, or as many of each class as there are."""
    order = np.random.default_rng(seed).permutation(len(data.train))
    if recipe.calibration_sampling == "stratified":
        labels = data.task.strata(data.train.y)[order]
        # How many samples of its class come before each: all first ones, then all second ones, …
        rank = np.empty(len(order), int)
        for label in np.unique(labels):
            of_class = labels == label
            rank[of_class] = np.arange(np.count_nonzero(of_class))
        order = order[np.argsort(rank, kind="stable")]
    return order[: recipe.calibration_samples]


def compare(network: Network, data: Dataset, runner: Runner, scheme: Scheme) -> dict[str, Any]:
    """The parity of a file with its network, with the accuracy of both on its samples.

    Returns:
        `max_abs` is the largest difference of logits to the network. What is held to `tolerance` is
        `max_abs_rounded`, that to the network with its kernels rounded as the file's are; see
        `parity.Parity` for `correlation` and `is_rough`.

    Raises:
        ParityError: They differ by more than files of `scheme` may.
    """
    count = min(PARITY_SAMPLES, len(data.validation))
    # Spread over the split: files of an image folder come class by class.
    spread = np.linspace(0, len(data.validation) - 1, count).astype(int)
    samples = data.validation.take(spread)
    batches = list(data.normalized_batches(samples, fitting_batch(data.shape, _BATCH)))
    actual = np.concatenate(list(runner.logits(x for x, _ in batches)))

    def logits() -> np.ndarray:
        return np.concatenate([network.model(x, training=False).numpy() for x, _ in batches])

    expected = rounded = logits()
    if scheme != "float32" and not network.recipe.trained_ranges:
        bits = weight_bits(network.model, scheme, network.recipe.weight_bits)
        with quantized_weights(network.model, bits):
            rounded = logits()
    parity = check_parity(scheme, rounded, actual)
    return {
        "max_abs": float(np.abs(expected - actual).max()),
        "max_abs_rounded": parity.max_abs,
        "tolerance": parity.tolerance,
        "correlation": parity.correlation,
        "is_rough": parity.is_rough,
        "samples": parity.samples,
        "metric": data.task.metric,
        "keras_score": _figure(data, batches, expected),
        "file_score": _figure(data, batches, actual),
        "same_predictions": data.task.same(actual, expected),
    }


def _figure(data: Dataset, batches: Sequence[Batch], outputs: np.ndarray) -> float:
    labels = np.concatenate([y for _, y in batches])
    x = np.concatenate([x for x, _ in batches])
    losses = losses_of(data, x, labels, outputs)
    answers = data.task.answers(outputs)
    return float(data.task.scores(labels, answers, losses)[data.task.metric])


@dataclass(frozen=True)
class Score:
    """How a file does on a split.

    Attributes:
        scores: The figures of the task, that which counts first.
        loss: The mean of the task's.
        details: What the record keeps of it besides.
    """

    scores: Mapping[str, float]
    loss: float
    details: Mapping[str, Any]


def score(runner: Runner, data: Dataset) -> Score:
    """Scores a file on the test split, in one pass."""
    labels, answers, losses = [], [], []
    for x, y in data.normalized_batches(data.test, fitting_batch(data.shape, _BATCH)):
        (said,) = runner.logits([x])
        labels.append(y)
        answers.append(data.task.answers(said))
        losses.append(losses_of(data, x, y, said))
    return scored(data, *(np.concatenate(part) for part in (labels, answers, losses)))


def scored(data: Dataset, labels: np.ndarray, answers: np.ndarray, losses: np.ndarray) -> Score:
    """The score of the answers (n, …) of a task for labels (n, …), with the loss of each, (n,)."""
    details = {}
    if data.task.is_classification:
        details["confusion"] = confusion(labels, answers.argmax(axis=-1), data.class_names)
    scores = data.task.scores(labels, answers, losses)
    return Score(scores, float(losses.mean()), details)


def losses_of(data: Dataset, x: np.ndarray, labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """(n,) float64: the loss of each sample, of outputs that a file gave."""
    y = data.task.targets(tf.constant(x), tf.constant(labels), data.classes)
    return data.task.losses(y, tf.constant(outputs, tf.float64)).numpy()


def layer_rows(model: keras.Model, weights: list[FileWeight]) -> list[dict[str, Any]]:
    """One row for each layer with weights.

    `shape` is that of its largest weight. `dtype` is that of the file's weights with as many
    elements: conversion renames and transposes weights, but keeps their size. None when the
    file has no such weight, as of a normalization that was folded into a convolution.
    """
    dtypes: dict[int, set[str]] = defaultdict(set)
    for weight in weights:
        dtypes[weight.size].add(weight.dtype)
    by_layer: dict[str, list[np.ndarray]] = defaultdict(list)
    for variable in model.weights:
        by_layer[variable.path.rpartition("/")[0]].append(keras.ops.convert_to_numpy(variable))
    rows = []
    for layer, values in by_layer.items():
        largest = max(values, key=np.size)
        rows.append(
            {
                "layer": layer,
                "shape": list(largest.shape),
                "params": sum(value.size for value in values),
                "nonzero": sum(int(np.count_nonzero(value)) for value in values),
                "dtype": "/".join(sorted(dtypes[largest.size])) or None,
            }
        )
    return rows
