"""Images per second of netopt's training against Keras `fit`, interleaved in one run.

    python -m benchmarks.training_speed [--rounds 7] [--images 9600]

Fashion-MNIST, arch `cnn` (241,546 parameters), Adam. Each contender is a process of its own, as a
user would start it, compiled and warmed up once; then all take turns for several rounds, so that
the machine's drift meets all alike. Figures are medians over the rounds, ratios are taken within a
round. The share of the peak counts three times the multiply-adds of a forward pass for each image.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
from rich.console import Console
from rich.table import Table

BATCH_SIZES = (32, 128)

_MOST_TURNS = 1000
"""Epochs that netopt's training is set up for, of which each turn is one."""

Turn = Callable[[], float]
"""Trains on all the benchmark's images once and returns images a second."""


@dataclass(frozen=True)
class Contender:
    """Attributes:
    steps_per_execution: Of Keras `fit`; None stands for netopt.
    """

    batch_size: int
    steps_per_execution: int | None

    @property
    def name(self) -> str:
        steps = self.steps_per_execution
        return "netopt" if steps is None else f"fit, {steps} steps a call"

    def prepare(self, images: int) -> Turn:
        import keras

        from netopt_cli.arch import cnn
        from netopt_cli.data import fashion_mnist
        from netopt_cli.dataset import ArraySource

        data = fashion_mnist.load(seed=0, train_limit=images)
        keras.utils.set_random_seed(0)
        if self.steps_per_execution is None:
            from netopt_cli.engine.interruption import Interruption
            from netopt_cli.engine.loop import TrainingLoop
            from netopt_cli.engine.settings import TrainSettings
            from netopt_cli.progress import SilentReporter
            from netopt_cli.target import cpu

            target = cpu.build()
            with target.strategy.scope():
                network = cnn.build(shape=data.shape, classes=data.classes)
            loop = TrainingLoop(
                network, data, TrainSettings(batch_size=self.batch_size, epochs=_MOST_TURNS),
                target=target, seed=0, modifiers=(), observer=SilentReporter(), stage="bench",
                last_epoch=_MOST_TURNS, started=time.perf_counter(),
            )  # fmt: skip

            def epoch() -> float:
                loop.next_epoch(Interruption())
                return loop.history[-1].samples_per_second

            return epoch

        network = cnn.build(shape=data.shape, classes=data.classes)
        network.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            steps_per_execution=self.steps_per_execution,
        )
        assert isinstance(data.train, ArraySource)
        x, y = data.normalization.numpy(data.train.x), data.train.y

        def turn() -> float:
            started = time.perf_counter()
            network.fit(x, y, batch_size=self.batch_size, epochs=1, verbose=0)
            return len(x) / (time.perf_counter() - started)

        return turn


def work(contender: Contender, images: int, pipe: Connection) -> None:
    """A contender's process: a turn for each message, until None."""
    turn = contender.prepare(images)
    while pipe.recv() is not None:
        pipe.send(turn())


def peak(pipe: Connection) -> None:
    """A process that measures FLOP/s of a float32 matrix product, and MACs of the network."""
    import tensorflow as tf

    from netopt_cli.arch import cnn
    from netopt_cli.export.litert import freeze
    from netopt_cli.measure.macs import count_macs

    size = 2048
    matrix = tf.random.normal((size, size))
    pipe.send(count_macs(freeze(cnn.build((28, 28, 1), 10)).traced.graph).total)
    while pipe.recv() is not None:
        best = 0.0
        for _ in range(5):
            started = time.perf_counter()
            tf.matmul(matrix, matrix).numpy()
            best = max(best, 2 * size**3 / (time.perf_counter() - started))
        pipe.send(best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=9_600)
    options = parser.parse_args()

    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    context = multiprocessing.get_context("spawn")
    contenders = [Contender(size, steps) for size in BATCH_SIZES for steps in (None, 1, 20)]
    jobs = [(work, (contender, options.images)) for contender in contenders] + [(peak, ())]
    pipes = []
    for function, arguments in jobs:
        here, there = context.Pipe()
        context.Process(target=function, args=(*arguments, there), daemon=True).start()
        pipes.append(here)
    macs = pipes[-1].recv()

    rounds = []
    for _ in range(options.rounds + 1):
        figures = []
        for pipe in pipes:
            pipe.send(True)
            figures.append(pipe.recv())
        rounds.append(figures)
    for pipe in pipes:
        pipe.send(None)
    # The first round compiles and warms up.
    *speeds, peaks = (list(values) for values in zip(*rounds[1:], strict=True))

    table = Table(title=f"images/s, {options.rounds} rounds", title_justify="left")
    for name in ("batch", "contender", "median", "lowest", "highest", "netopt is × faster"):
        table.add_column(name, justify="left" if name == "contender" else "right")
    reference = dict(zip(contenders, speeds, strict=True))
    for contender, values in reference.items():
        ratios = np.divide(reference[Contender(contender.batch_size, None)], values)
        table.add_row(
            str(contender.batch_size), contender.name, f"{statistics.median(values):,.0f}",
            f"{min(values):,.0f}", f"{max(values):,.0f}", f"{np.median(ratios):.2f}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    top = statistics.median(peaks)
    for size in BATCH_SIZES:
        rate = statistics.median(reference[Contender(size, None)]) * 3 * 2 * macs
        console.print(
            f"batch {size}: netopt computes {rate / 1e9:.0f} GFLOP/s, {rate / top:.0%} of the "
            f"matrix-product peak of {top / 1e9:.0f} GFLOP/s",
            soft_wrap=True,
        )


if __name__ == "__main__":
    main()
