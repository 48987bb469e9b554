"""A stage alone: a tiny network, a context that trains it, and a record of what was asked for."""

from collections.abc import Sequence

import keras
import numpy as np

from netopt_cli.contracts import ArchBuilder, Modifier, Network
from netopt_cli.dataset import Dataset
from netopt_cli.engine.settings import TrainSettings
from netopt_cli.engine.training import FitResult, fit
from netopt_cli.networks import build_network
from netopt_cli.progress import SilentReporter
from netopt_cli.target import cpu


def build(shape: tuple[int, ...], classes: int, units: int = 24) -> keras.Model:
    inputs = keras.Input(shape, name="input")
    x = keras.layers.Flatten(name="flatten")(inputs)
    x = keras.layers.Dense(units, activation="relu", name="dense_1")(x)
    x = keras.layers.Dense(units, activation="relu", name="dense_2")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(x), name="tiny")


class Bench:
    """A context for one stage alone."""

    def __init__(self, data: Dataset, *, is_first: bool = True, epochs: int = 4) -> None:
        self.data = data
        self.control_data = data
        self.seed = 0
        self.epochs = epochs
        self.is_first = is_first
        self.notes: list[str] = []
        self.results: list[FitResult] = []
        self.used: list[tuple[Dataset, Dataset]] = []
        self.restarts: list[bool] = []
        self.weight_decays: list[float | None] = []

    def fit(
        self,
        network: Network,
        *,
        epochs: int,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        modifiers: Sequence[Modifier] = (),
        restart: bool = False,
        data: Dataset | None = None,
        control_data: Dataset | None = None,
    ) -> Network:
        settings = TrainSettings(
            epochs=epochs, batch_size=20, learning_rate=learning_rate or 0.01, steps_per_call=5,
            weight_decay=weight_decay or 0.0,
        )  # fmt: skip
        kept = [keep(network.model) for keep in network.keeps]
        self.restarts.append(restart)
        self.used.append((data or self.data, control_data or data or self.control_data))
        self.weight_decays.append(weight_decay)
        self.results.append(
            fit(
                network.model, data or self.data, settings,
                target=cpu.build(), seed=0, modifiers=[*modifiers, *kept],
                observer=SilentReporter(), stage="stage",
            )
        )  # fmt: skip
        return network

    def buy_labels(self, indices: np.ndarray) -> None:
        self.data = self.data.with_labels_of(indices)
        self.control_data = self.control_data.with_labels_of(np.arange(len(indices)))

    def build(self, arch: ArchBuilder, classes: int | None = None) -> Network:
        keras.utils.set_random_seed(0)
        with cpu.build().strategy.scope():
            return build_network(arch, self.data, classes)

    def fresh(self) -> Network:
        return self.build(build)

    def teacher(
        self,
        arch: ArchBuilder,
        *,
        epochs: int,
        data: Dataset | None = None,
    ) -> keras.Model:
        data = data or self.data
        keras.utils.set_random_seed(1)
        with cpu.build().strategy.scope():
            network = build_network(arch, data)
        return self.fit(network, epochs=epochs, data=data).model if epochs else network.model

    def rewound(self, epochs: int) -> Network:
        network = self.fresh()
        return self.fit(network, epochs=epochs) if epochs else network

    def evaluate(self, model: keras.Model) -> float:
        x, y = next(self.data.normalized_batches(self.data.validation, len(self.data.validation)))
        return float(np.mean(model(x).numpy().argmax(-1) == y))

    def note(self, message: str) -> None:
        self.notes.append(message)


def apply(stage, network: Network, bench: Bench) -> Network:
    with cpu.build().strategy.scope():
        return stage(network, bench)
