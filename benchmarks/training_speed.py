"""Images per second of netopt's training against Keras `fit`, interleaved in one run.

    python -m benchmarks.training_speed [--rounds 7] [--images 19200]

Fashion-MNIST, arch `cnn` (241,546 parameters), Adam. Each contender is compiled and warmed up once,
then all take turns for several rounds, so that the machine's drift meets all alike; figures are
medians over the rounds and ratios are taken within a round. The share of the peak counts three
forward passes' multiply-adds an image (forward, gradient of inputs, gradient of weights).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from netopt_cli.arch import cnn
from netopt_cli.data import fashion_mnist
from netopt_cli.dataset import Dataset
from netopt_cli.engine.settings import TrainSettings
from netopt_cli.engine.training import TrainingLoop
from netopt_cli.export.litert import freeze
from netopt_cli.measure.macs import count_macs
from netopt_cli.progress import SilentReporter
from netopt_cli.target import cpu

BATCH_SIZES = (32, 128)
STEPS_PER_EXECUTION = (1, 20)

Contender = Callable[[], float]
"""Trains on the benchmark's images once and returns images a second."""


def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return cnn.build(shape=(28, 28, 1), classes=10)


def netopt(data: Dataset, batch_size: int, images: int) -> Contender:
    settings = TrainSettings(batch_size=batch_size, epochs=1)
    loop = TrainingLoop(
        model(), data, settings,
        target=cpu.build(), seed=0, modifiers=(), observer=SilentReporter(), stage="bench",
    )  # fmt: skip

    def turn() -> float:
        return loop.epoch(0).images_per_second

    return turn


def keras_fit(data: Dataset, batch_size: int, steps_per_execution: int) -> Contender:
    x, y = data.normalization.numpy(data.train.x), data.train.y
    network = model()
    network.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )

    def turn() -> float:
        started = time.perf_counter()
        network.fit(x, y, batch_size=batch_size, epochs=1, verbose=0)
        return len(x) / (time.perf_counter() - started)

    return turn


def matrix_peak_flops(size: int = 2048, repeats: int = 5) -> float:
    """Returns the best FLOP/s of a float32 matrix product, all threads."""
    matrix = tf.random.normal((size, size))
    best = 0.0
    for _ in range(repeats):
        started = time.perf_counter()
        tf.matmul(matrix, matrix).numpy()
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=19_200)
    options = parser.parse_args()

    data = fashion_mnist.load(seed=0, train_limit=options.images)
    contenders: dict[tuple[int, str], Contender] = {}
    for batch_size in BATCH_SIZES:
        contenders[batch_size, "netopt"] = netopt(data, batch_size, options.images)
        for steps in STEPS_PER_EXECUTION:
            contenders[batch_size, f"fit, {steps} a call"] = keras_fit(data, batch_size, steps)
    speeds: dict[tuple[int, str], list[float]] = {key: [] for key in contenders}
    peaks = []
    for _ in range(options.rounds + 1):
        peaks.append(matrix_peak_flops())
        for key, turn in contenders.items():
            speeds[key].append(turn())
    # The first round compiles and warms up.
    speeds = {key: values[1:] for key, values in speeds.items()}
    peak = statistics.median(peaks[1:])
    macs = count_macs(freeze(model()).traced.graph).total
    flops_per_image = 3 * 2 * macs

    table = Table(title=f"images/s, median of {options.rounds} rounds", title_justify="left")
    for name in ("batch", "contender", "images/s", "lowest", "highest", "netopt is × faster"):
        table.add_column(name, justify="left" if name == "contender" else "right")
    for (batch_size, name), values in speeds.items():
        ratios = np.divide(speeds[batch_size, "netopt"], values)
        table.add_row(
            str(batch_size), name, f"{statistics.median(values):,.0f}",
            f"{min(values):,.0f}", f"{max(values):,.0f}", f"{np.median(ratios):.2f}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    for batch_size in BATCH_SIZES:
        rate = statistics.median(speeds[batch_size, "netopt"]) * flops_per_image
        console.print(
            f"batch {batch_size}: netopt computes {rate / 1e9:.0f} GFLOP/s, "
            f"{rate / peak:.0%} of the matrix-product peak of {peak / 1e9:.0f} GFLOP/s"
        )


if __name__ == "__main__":
    main()
