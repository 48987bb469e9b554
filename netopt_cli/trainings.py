"""The trainings of a run, and what they look like to a stage: its context."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from netopt_cli.contracts import ArchBuilder, Modifier, Network, Target
from netopt_cli.dataset import Dataset
from netopt_cli.engine.checkpoints import Checkpoints
from netopt_cli.engine.evaluation import Evaluator
from netopt_cli.engine.loop import Origin
from netopt_cli.engine.settings import TrainSettings
from netopt_cli.engine.training import FitResult, fit
from netopt_cli.errors import DivergedError, InputError
from netopt_cli.metrics import metric_named
from netopt_cli.networks import build_network
from netopt_cli.observer import Epoch
from netopt_cli.progress import Reporter
from netopt_cli.record import Record


@dataclass(frozen=True)
class FitCall:
    """A training, as far as the control of a stage has to repeat it.

    Attributes:
        epochs: Epochs that were planned, which the schedule of the learning rate goes by.
        epochs_run: Epochs that were run: fewer after early stopping.
        settles_at: See `Modifier`: the control chooses among the same epochs.
        restart: Whether it began with new weights.
        data: What the control is trained on.
    """

    epochs: int
    epochs_run: int
    learning_rate: float
    settles_at: float
    restart: bool
    data: Dataset


class Trainings:
    """What all trainings of a run share, and what is trained once for several stages."""

    def __init__(
        self,
        arch: ArchBuilder,
        data: Dataset,
        target: Target,
        settings: TrainSettings,
        *,
        seed: int,
        record: Record,
        reporter: Reporter,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Args: checkpoints: Where trainings are kept; None for several workers."""
        self.data = data
        self.control_data = data
        self.seed = seed
        self.settings = settings
        self.record = record
        self.reporter = reporter
        self.target = target
        self._checkpoints = checkpoints
        self._arch = arch
        self._teachers: dict[str, keras.Model] = {}
        self._rewound: dict[int, list[np.ndarray]] = {}

    @property
    def labels(self) -> int | None:
        """The training samples whose labels are known; None without a label budget."""
        return None if self.data.unlabeled is None else len(self.data.train)

    def buy_labels(self, indices: np.ndarray) -> None:
        """Moves unlabelled samples to the training samples, and for controls as many at random."""
        assert self.control_data.unlabeled is not None
        generator = np.random.default_rng([self.seed, 5, len(self.data.train)])
        drawn = generator.permutation(len(self.control_data.unlabeled))[: len(indices)]
        self.data = self.data.with_labels_of(indices)
        self.control_data = self.control_data.with_labels_of(drawn)

    def fresh(self) -> Network:
        """The run's arch with new weights: the same ones every time."""
        return self.build(self._arch, self.seed)

    def build(self, arch: ArchBuilder, seed: int, data: Dataset | None = None) -> Network:
        data = self.data if data is None else data
        keras.utils.set_random_seed(seed)
        with self.target.strategy.scope():
            return build_network(arch, data)

    def teacher(
        self,
        arch: ArchBuilder,
        epochs: int,
        trainer: Trainer,
        data: Dataset | None,
    ) -> tuple[keras.Model, str]:
        """A teacher, trained the first time that it is asked for, and what became of it then."""
        data = self.data if data is None else data
        key = f"{arch} {epochs} {data.name}"
        how = ""
        if key not in self._teachers:
            # Another seed than the student's: a teacher of the same arch must not be its twin.
            network = self.build(arch, self.seed + 1, data)
            teacher = network.model
            if epochs:
                title = f"{trainer.name} teacher"
                result = self.train(network, trainer, epochs=epochs, title=title, data=data)
                by = " by an earlier run" if result.origin == "taken over" else ""
                how = f"trained{by} in {result.seconds:.1f} s"
            teacher.trainable = False
            if self.target.is_chief:
                file = f"{len(self._teachers) + 1}-{teacher.name}.keras"
                self.record.save_model("teachers", teacher, file)
            self._teachers[key] = teacher
        return self._teachers[key], how

    def rewound(self, epochs: int, trainer: Trainer) -> Network:
        """The run's arch after the first `epochs` of the baseline's training."""
        network = self.fresh()
        if epochs and epochs not in self._rewound:
            self.train(
                network,
                trainer,
                epochs=self.settings.epochs,
                title=f"{trainer.name} rewinding",
                # The weights after the last of these epochs, not the best of them.
                modifiers=[Modifier("last epoch", settles_at=1.0)],
                stop_after=epochs,
            )
            self._rewound[epochs] = network.model.get_weights()
        elif epochs:
            network.model.set_weights(self._rewound[epochs])
        return network

    def train(
        self,
        network: Network,
        trainer: Trainer,
        *,
        epochs: int,
        title: str,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        modifiers: Sequence[Modifier] = (),
        stop_after: int | None = None,
        data: Dataset | None = None,
    ) -> FitResult:
        """Trains a network in place and keeps the history."""
        settings = replace(
            self.settings,
            epochs=epochs,
            learning_rate=learning_rate or self.settings.learning_rate,
            weight_decay=self.settings.weight_decay if weight_decay is None else weight_decay,
        )
        kept = [keep(network.model) for keep in network.keeps]
        try:
            result = fit(
                network.model,
                self.data if data is None else data,
                settings,
                target=self.target,
                seed=self.seed,
                modifiers=[*modifiers, *kept],
                observer=_Recording(self.reporter, self.record),
                stage=title,
                stop_after=stop_after,
                checkpoints=self._checkpoints,
                lineage=trainer.lineage,
            )
        except (DivergedError, KeyboardInterrupt) as error:
            path = self.record.save_model(trainer.label, network.model, "last_good.keras")
            if isinstance(error, DivergedError):
                where = "train" if learning_rate is None else f"opt.{trainer.name}"
                raise DivergedError(
                    f"{error}. Try a lower {where}.learning_rate, train.warmup_fraction=0.1 or "
                    f"train.clip_norm=1.0. The last good weights are in {path}."
                ) from error
            self.reporter.say(f"interrupted in '{title}': the weights so far are in {path}")
            raise
        trainer.seconds += result.seconds
        trainer.origins.append(result.origin)
        self.record.stage_fact(
            trainer.label, f"training of {title}", _summary(result, self.data.task.metric)
        )
        return result


class Trainer:
    """The context of one stage (or control): see `contracts.Context`."""

    def __init__(
        self,
        trainings: Trainings,
        *,
        label: str,
        name: str,
        is_first: bool = False,
        lineage: str = "",
    ) -> None:
        """Args: lineage: The settings of the stages so far, see `identity.training_name`."""
        self._trainings = trainings
        self.label = label
        self.name = name
        self.is_first = is_first
        self.lineage = lineage
        self.calls: list[FitCall] = []
        self.origins: list[Origin] = []
        self.seconds = 0.0
        self.trainable_params = 0

    @property
    def data(self) -> Dataset:
        return self._trainings.data

    @property
    def control_data(self) -> Dataset:
        return self._trainings.control_data

    @property
    def seed(self) -> int:
        return self._trainings.seed

    @property
    def epochs(self) -> int:
        return self._trainings.settings.epochs

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
        result = self._trainings.train(
            network,
            self,
            epochs=epochs,
            title=self.name,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            modifiers=modifiers,
            data=data,
        )
        self.trainable_params = max(self.trainable_params, result.trainable_params)
        self.calls.append(
            FitCall(
                epochs=epochs,
                epochs_run=len(result.epochs),
                learning_rate=learning_rate or self._trainings.settings.learning_rate,
                settles_at=max((m.settles_at for m in modifiers), default=0.0),
                restart=restart,
                data=control_data or data or self.control_data,
            )
        )
        return network

    def buy_labels(self, indices: np.ndarray) -> None:
        self._trainings.buy_labels(indices)

    def repeat(self, network: Network, call: FitCall) -> None:
        """Trains the plain network in place as long as, and in the manner of, another training."""
        result = self._trainings.train(
            network,
            self,
            epochs=call.epochs,
            title=self.name,
            learning_rate=call.learning_rate,
            modifiers=[Modifier("same choice of epochs", settles_at=call.settles_at)],
            stop_after=call.epochs_run,
            data=call.data,
        )
        self.trainable_params = max(self.trainable_params, result.trainable_params)

    def build(self, arch: ArchBuilder) -> Network:
        return self._trainings.build(arch, self.seed)

    def fresh(self) -> Network:
        return self._trainings.fresh()

    def teacher(
        self,
        arch: ArchBuilder,
        *,
        epochs: int,
        data: Dataset | None = None,
    ) -> keras.Model:
        model, how = self._trainings.teacher(arch, epochs, self, data)
        known = self.data if data is None else data
        _, score = Evaluator(model, known, known.validation)()
        metric = metric_named(known.task.metric)
        self.note(
            f"teacher {model.name}: {model.count_params():,} parameters, "
            f"validation {metric.title} {metric.text(score)}{', ' if how else ''}{how}"
        )
        return model

    def rewound(self, epochs: int) -> Network:
        if not 0 <= epochs <= self.epochs:
            raise InputError(
                f"{self.name}: rewinding goes to an epoch of the baseline's training, 0 to "
                f"{self.epochs}. Received: {epochs}"
            )
        return self._trainings.rewound(epochs, self)

    def evaluate(self, model: keras.Model) -> float:
        loss, score = Evaluator(model, self.data, self.data.validation)()
        return -loss if math.isnan(score) else self.data.task.rank(score)

    def note(self, message: str) -> None:
        self._trainings.reporter.say(f"  {message}")
        self._trainings.record.stage_note(self.label, message)


class _Recording:
    """Passes what an observer is told to the reporter, and every epoch to the record first."""

    def __init__(self, reporter: Reporter, record: Record) -> None:
        self._reporter = reporter
        self._record = record
        self.training_starts = reporter.training_starts
        self.steps_done = reporter.steps_done
        self.training_ends = reporter.training_ends

    def epoch_ends(self, epoch: Epoch) -> None:
        self._record.add_epoch(epoch)
        self._reporter.epoch_ends(epoch)

    def taken_up(self, epochs: Sequence[Epoch], origin: str) -> None:
        for epoch in epochs:
            self._record.add_epoch(epoch)
        self._reporter.taken_up(epochs, origin)


def _summary(result: FitResult, metric: str) -> dict[str, float | int | str]:
    return {
        "epochs_run": len(result.epochs),
        "kept_epoch": result.kept_epoch,
        f"val_{metric}": result.val_score,
        "seconds": round(result.seconds, 3),
        "origin": result.origin,
    }
