"""A network with early exits, exported in segments and measured as it runs: sample by sample."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from netopt_cli.contracts import Network, Timing
from netopt_cli.dataset import Dataset, Source
from netopt_cli.errors import RunError
from netopt_cli.export.litert import FrozenGraph, freeze, to_litert
from netopt_cli.export.packed import pack
from netopt_cli.export.strip import strip
from netopt_cli.graph.exits import segments, without_exits
from netopt_cli.measure.exit_policy import NEVER, choose_thresholds, left_at, uncertainties
from netopt_cli.measure.exit_probe import ExitFiles, probe_exits
from netopt_cli.measure.file_weights import read_file_weights, sparsity
from netopt_cli.measure.macs import count_macs
from netopt_cli.measure.measurement import (
    Measurement,
    Runner,
    calibration_samples,
    compare,
    export_network,
    gzip_size,
    layer_rows,
    losses_of,
    score,
    scored,
)
from netopt_cli.measure.runtime import LitertRunner
from netopt_cli.measure.segment_runtime import SegmentChain

TIMED_SAMPLES = 1000
"""Test samples, the first ones in their order, that are timed one by one."""

_BATCH = 512


@dataclass(frozen=True)
class Segment:
    """A part of a network with exits.

    Attributes:
        graph: Its trace: from what the segment before hands over to [logits, what it hands over].
        content: Of its LiteRT file.
    """

    graph: FrozenGraph
    content: bytes

    @cached_property
    def packed(self) -> bytes:
        """The file recoded by `export.packed`."""
        return pack(self.content)


@dataclass(frozen=True)
class ExitExport:
    """A network with early exits as files.

    Attributes:
        segments: In the order in which they run.
        whole: The same network without its exits, in one file.
    """

    segments: list[Segment]
    whole: Segment


def export_exits(network: Network, data: Dataset, seed: int = 0) -> ExitExport:
    """Exports the segments to LiteRT by the network's recipe, and the network without exits.

    The ranges of a segment are read from what the segments before it make of the same samples, so
    that what one hands over and the next reads have one scale.

    Args:
        seed: Chooses the calibration samples among `data.train`.

    Raises:
        ArchError: The graph cannot be cut at its exits.
        ConfigError, RunError: See `export.litert.to_litert`.
    """
    samples = list(calibration_samples(network, data, seed))
    parts = []
    for model in segments(network.model):
        graph = freeze(model)
        parts.append(Segment(graph, strip(to_litert(graph, network.recipe, iter(samples)))))
        if len(model.outputs) > 1:
            samples = [model(x, training=False)[1].numpy() for x in samples]
    whole = replace(network, model=without_exits(network.model), exits=None)
    return ExitExport(parts, Segment(*export_network(whole, data, seed)))


class SegmentRunner:
    """The segments as a function from samples to the logits of all exits.

    Args:
        files: Of the segments or their content.
        workers: Chains that share the samples, each in its own thread.
    """

    def __init__(self, files: Sequence[Path | bytes], timing: Timing, workers: int) -> None:
        timing = replace(timing, threads=1) if workers > 1 else timing
        self._chains = [SegmentChain(files, timing) for _ in range(workers)]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """float32 (n, *shape) -> float32 (exits + 1, n, classes)."""
        shares = np.array_split(x, len(self._chains))
        with ThreadPoolExecutor(len(self._chains)) as pool:
            found = pool.map(SegmentChain.logits, self._chains, shares)
            return np.concatenate(list(found), axis=1)

    def exits(self) -> list[Runner]:
        """Each exit's logits, and the final ones, as if they were a file's alone."""
        return [_OneExit(self, number) for number in range(self._chains[0].exits + 1)]

    def on(self, data: Dataset, source: Source) -> tuple[np.ndarray, np.ndarray]:
        """Logits (exits + 1, n, classes) and labels (n,) of a split."""
        found = [(self(x), y) for x, y in data.normalized_batches(source, _BATCH)]
        return np.concatenate([one for one, _ in found], axis=1), np.concatenate(
            [y for _, y in found]
        )


@dataclass(frozen=True)
class _OneExit:
    """A `Runner` of one exit's logits."""

    runner: SegmentRunner
    exit_: int

    def logits(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for batch in batches:
            yield self.runner(batch)[self.exit_]


def measure_exits(
    network: Network, export: ExitExport, files: ExitFiles, data: Dataset, timing: Timing
) -> tuple[Measurement, list[dict[str, Any]]]:
    """Measures the segments, by thresholds from validation, beside the network without exits.

    Args:
        files: Where `export` was saved.

    Returns:
        The row of the stage: accuracy and loss are those of the logits that samples leave with,
        bytes are summed over the segments, multiply-accumulates the mean over the test samples,
        `latency_ms_median` is the *mean* wall time of a sample (its median would be that of one
        exit), `latency_ms_p90` its 90th percentile. And the rows of `exits.csv`.

    Raises:
        ParityError: A file does not compute what the network computes.
        RunError: A file cannot be loaded or timed, or the costs of the exits are not known.
    """
    policy = network.exits
    assert policy is not None, "without exits there is nothing to choose"
    scheme = network.recipe.scheme
    workers = os.cpu_count() or 1
    runner = SegmentRunner([part.content for part in export.segments], timing, workers)
    parity = [
        compare(replace(network, model=keras.Model(network.model.input, logits)), data, one, scheme)
        for logits, one in zip(network.model.outputs, runner.exits(), strict=True)
    ]
    costs = np.cumsum([_macs(part) for part in export.segments])
    logits, labels = runner.on(data, data.validation)
    choice = choose_thresholds(
        policy, uncertainties(policy.rule, logits[:-1]), logits.argmax(-1) == labels, costs
    )
    logits, labels = runner.on(data, data.test)
    left = left_at(uncertainties(policy.rule, logits[:-1]), choice.thresholds)
    own = logits[left, np.arange(len(labels))]
    count = min(TIMED_SAMPLES, len(data.test))
    samples = np.concatenate(
        [x for x, _ in data.normalized_batches(data.test.take(np.arange(count)), _BATCH)]
    )
    timed = probe_exits(files, samples, policy.rule, choice.thresholds, timing)
    whole = score(LitertRunner(export.whole.content, timing, workers), data)
    weights = [w for part in export.segments for w in read_file_weights(part.content)]
    layers = layer_rows(network.model, weights)
    right = own.argmax(-1) == labels
    found = scored(data, labels, own, losses_of(data, labels, labels, own))
    measurement = Measurement(
        scores=found.scores,
        loss=found.loss,
        params=network.model.count_params(),
        nonzero_params=sum(layer["nonzero"] for layer in layers),
        sparsity=sparsity(weights),
        macs=round(float(costs[left].mean())),
        size_bytes=sum(len(part.content) for part in export.segments),
        size_gzip_bytes=sum(gzip_size(part.content) for part in export.segments),
        size_packed_bytes=sum(len(part.packed) for part in export.segments),
        latency_ms_median=float(timed.latency_ms.mean()),
        latency_ms_p90=float(np.percentile(timed.latency_ms, 90)),
        peak_memory_bytes=timed.peak_memory_bytes,
        parity_max_abs=max(one["max_abs"] for one in parity),
        details={
            "layers": layers,
            "parity": parity[-1],
            "parity_of_exits": parity[:-1],
            **found.details,
            "recipe": scheme,
            "policy": policy.rule,
            "thresholds": choice.thresholds.tolist(),
            "validation_accuracy": choice.accuracy,
            "validation_accuracy_final": choice.final_accuracy,
            "validation_cost": choice.cost,
            "timed_samples": count,
            "same_exits": float(np.mean(timed.left_at == left[:count])),
            "runtime": f"ai-edge-litert {version('ai-edge-litert')}",
            "device": timing.device,
            "threads": timing.threads,
        },
        packed=b"".join(part.packed for part in export.segments),
    )
    whole_row = _row(
        "without exits",
        accuracy=whole.scores["accuracy"],
        macs=np.array([_macs(export.whole)]),
        latency_ms=timed.whole_ms,
        size_bytes=len(export.whole.content),
    )
    policy_row = _row(
        "with exits",
        accuracy=measurement.score,
        macs=costs[left],
        latency_ms=timed.latency_ms,
        size_bytes=measurement.size_bytes,
    )
    exit_rows = []
    for number, part in enumerate(export.segments):
        is_last = number == len(export.segments) - 1
        has_no_threshold = is_last or choice.thresholds[number] == NEVER
        leaves, is_timed = left == number, timed.left_at == number
        exit_rows.append(
            _row(
                "to the end" if is_last else f"exit {number + 1}",
                accuracy=float(right[leaves].mean()) if leaves.any() else None,
                macs=costs[[number]],
                latency_ms=timed.latency_ms[is_timed],
                size_bytes=len(part.content),
                threshold=None if has_no_threshold else float(choice.thresholds[number]),
                share=float(leaves.mean()),
            )
        )
    rows = [whole_row, policy_row, *exit_rows]
    common = {"policy": policy.rule, "timed_samples": count}
    times_faster = whole_row["latency_ms_mean"] / policy_row["latency_ms_mean"]
    policy_row["times_faster"] = times_faster
    return measurement, [row | common for row in rows]


def _row(
    path: str,
    *,
    accuracy: float | None,
    macs: np.ndarray,
    latency_ms: np.ndarray,
    size_bytes: int,
    threshold: float | None = None,
    share: float | None = None,
) -> dict[str, Any]:
    """A row of `exits.csv`: see `exit_table.COLUMNS`."""
    no_time = len(latency_ms) == 0
    return {
        "path": path,
        "threshold": threshold,
        "share": share,
        "accuracy": accuracy,
        "macs_mean": float(macs.mean()),
        "macs_median": float(np.median(macs)),
        "macs_max": int(macs.max()),
        "latency_ms_mean": None if no_time else float(latency_ms.mean()),
        "latency_ms_median": None if no_time else float(np.median(latency_ms)),
        "latency_ms_p99": None if no_time else float(np.percentile(latency_ms, 99)),
        "latency_ms_max": None if no_time else float(latency_ms.max()),
        "size_bytes": size_bytes,
        "times_faster": None,
    }


def _macs(part: Segment) -> int:
    count = count_macs(part.graph.traced.graph)
    if count.total is None:
        raise RunError(
            "thresholds of exits are chosen by what they save, and the multiply-accumulates of an "
            f"operation are not known: {count.uncounted[0]}"
        )
    return count.total
