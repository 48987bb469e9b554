"""What a network is worth off the beaten track: under attack, corrupted, sure of itself, on samples
of another kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from netopt_cli.contracts import Network
from netopt_cli.dataset import ArraySource, Dataset, Source
from netopt_cli.errors import ConfigError
from netopt_cli.graph.attacks import Ball, ball_of, check_epsilon, raw_range
from netopt_cli.measure.attacking import Attack, Check, Samples, check_attacks, unattacked
from netopt_cli.measure.calibration import (
    auroc,
    expected_calibration_error,
    max_softmax,
    negative_energy,
    negative_log_likelihood,
)
from netopt_cli.measure.corruptions import SEVERITIES, corrupt, corruptions_of
from netopt_cli.measure.measurement import Runner
from netopt_cli.suitability import needs_classes, needs_values

_BATCH = 500

Count = Annotated[int, Field(ge=1)]
Foreign = Literal["permuted", "noise"] | Callable[..., Dataset]


@dataclass(frozen=True)
class Robustness:
    """What is measured of robustness after each stage.

    Attributes:
        epsilon: Of FGSM and PGD, as a fraction of the range of the data: see `graph.attacks`.
        steps: Of PGD.
        step_size: Of PGD, as a fraction of the range; None is 2.5 ε / steps.
        restarts: Of PGD, from random points; the worst counts.
        samples: Of the test split, drawn by the seed; None takes all.
        checked_samples: Of these, for the checks that need further attacks.
        corruptions: Whether corrupted samples are measured.
        out_of_distribution: What must be told from the samples: `permuted`, the samples with their
            values in another order; `noise`, uniform values; or another data set of their shape.
    """

    epsilon: float = 0.1
    steps: Count = 20
    step_size: Annotated[float, Field(gt=0, le=1)] | None = None
    restarts: Count = 1
    samples: Count | None = 1000
    checked_samples: Count = 200
    corruptions: bool = True
    out_of_distribution: Foreign = "permuted"

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    def on(self, data: Dataset, seed: int) -> RobustnessProbe:
        """Draws the samples.

        Raises:
            ConfigError: The other data set has samples of another shape, or the task is not to
                tell classes.
        """
        reason = needs_classes(data) or needs_values(data)
        if reason is not None:
            raise ConfigError(f"robustness cannot be measured here: {reason}")
        random = np.random.default_rng([seed, 3])
        count = min(self.samples or len(data.test), len(data.test))
        chosen = data.test.take(np.sort(random.permutation(len(data.test))[:count]))
        x, y = _in_memory(chosen)
        low, high = raw_range(data)
        unit = ((x - low) / (high - low)).clip(0, 1).astype(np.float32)
        kind, foreign = self._foreign(unit, data, seed, random)
        ball = ball_of(data, self.epsilon)
        return RobustnessProbe(self, data, seed, ball, (low, high), unit, y, kind, foreign)

    @property
    def pgd_step(self) -> float:
        return 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size

    def _foreign(
        self, unit: np.ndarray, data: Dataset, seed: int, random: np.random.Generator
    ) -> tuple[str, np.ndarray]:
        """What the foreign samples are, and as many of them at most, in [0, 1]."""
        if self.out_of_distribution == "noise":
            return "noise", random.random(unit.shape, np.float32)
        if self.out_of_distribution == "permuted":
            flat = unit.reshape(len(unit), -1)
            return "permuted", flat[:, random.permutation(flat.shape[1])].reshape(unit.shape)
        assert callable(self.out_of_distribution)
        other = self.out_of_distribution(seed=seed)
        if other.shape != data.shape:
            raise ConfigError(
                "robustness.out_of_distribution must have samples of the shape "
                f"{data.shape}. Received: {other.name} with {other.shape}"
            )
        x, _ = _in_memory(other.test.take(np.arange(min(len(unit), len(other.test)))))
        low, high = raw_range(other)
        return other.name, ((x - low) / (high - low)).clip(0, 1).astype(np.float32)


@dataclass(frozen=True)
class RobustnessMeasurement:
    """The numbers of one network; the fields but `checks` and `details` are columns of
    `robustness.csv`.

    Attributes:
        clean, fgsm, pgd: Accuracy of the file, on samples attacked on the Keras network.
        corrupted: Accuracy of the file, mean over all corruptions and severities.
        network_clean, network_fgsm, network_pgd: Accuracy of the Keras network itself.
        ece: Expected calibration error of the file, see `calibration`.
        nll: Mean cross-entropy of the file (nats).
        auroc_max_softmax, auroc_energy: How often the file scores a sample higher than a foreign
            one, by its largest probability and by its energy.
        checks: The sanity checks of the attacks.
        details: Corruptions by kind and severity, the checks.
    """

    clean: float
    fgsm: float
    pgd: float
    corrupted: float | None
    network_clean: float
    network_fgsm: float
    network_pgd: float
    ece: float
    nll: float
    auroc_max_softmax: float
    auroc_energy: float
    epsilon: float
    steps: int
    step_size: float
    restarts: int
    samples: int
    out_of_distribution: str
    sound: bool
    checks: list[Check] = field(repr=False)
    details: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, eq=False)
class RobustnessProbe:
    """Measures networks on the same samples: see `Robustness`.

    Attributes:
        unit: float32 (n, *shape), the samples in [0, 1].
        labels: (n,).
        foreign: (m, *shape), of another kind, also in [0, 1].
    """

    settings: Robustness
    data: Dataset
    seed: int
    ball: Ball
    raw_range: tuple[float, float]
    unit: np.ndarray
    labels: np.ndarray
    foreign_kind: str
    foreign: np.ndarray

    def __call__(self, network: Network, runner: Runner) -> RobustnessMeasurement:
        """Attacks the Keras network, and runs its file on the samples of every kind.

        Args:
            runner: The file of the network.
        """
        settings, model = self.settings, network.model
        samples = Samples(self._normalized(self.unit), self.labels)
        one_step = Attack(self.ball, steps=1, step_size=settings.epsilon, restarts=0)
        many_steps = Attack(self.ball, settings.steps, settings.pgd_step, settings.restarts)
        clean = unattacked(model, samples)
        fgsm = one_step(model, samples, self.seed)
        pgd = many_steps(model, samples, self.seed)
        checks = check_attacks(
            model,
            samples,
            many_steps,
            clean=clean,
            fgsm=fgsm,
            pgd=pgd,
            checked=settings.checked_samples,
            seed=self.seed,
        )
        logits = _logits(runner, samples.x)
        foreign = _logits(runner, self._normalized(self.foreign))
        corrupted = dict(self._corrupted(runner)) if settings.corruptions else {}
        return RobustnessMeasurement(
            clean=self._accuracy(logits),
            fgsm=self._accuracy(_logits(runner, fgsm.x)),
            pgd=self._accuracy(_logits(runner, pgd.x)),
            corrupted=float(np.mean(list(corrupted.values()))) if corrupted else None,
            network_clean=clean.accuracy,
            network_fgsm=fgsm.accuracy,
            network_pgd=pgd.accuracy,
            ece=expected_calibration_error(logits, self.labels),
            nll=negative_log_likelihood(logits, self.labels),
            auroc_max_softmax=auroc(max_softmax(logits), max_softmax(foreign)),
            auroc_energy=auroc(negative_energy(logits), negative_energy(foreign)),
            epsilon=settings.epsilon,
            steps=settings.steps,
            step_size=settings.pgd_step,
            restarts=settings.restarts,
            samples=len(self.labels),
            out_of_distribution=self.foreign_kind,
            sound=all(check.passed for check in checks),
            checks=checks,
            details={
                "accuracy_by_corruption": corrupted,
                "checks": {check.name: [check.passed, check.found] for check in checks},
            },
        )

    def _corrupted(self, runner: Runner) -> Iterator[tuple[str, list[float]]]:
        for name in corruptions_of(self.data.shape):
            yield (
                name,
                [
                    self._accuracy(
                        _logits(
                            runner, self._normalized(corrupt(self.unit, name, severity, self.seed))
                        )
                    )
                    for severity in range(1, SEVERITIES + 1)
                ],
            )

    def _normalized(self, unit: np.ndarray) -> np.ndarray:
        low, high = self.raw_range
        return self.data.normalization.numpy(low + unit * (high - low))

    def _accuracy(self, logits: np.ndarray) -> float:
        return float(np.mean(logits.argmax(axis=-1) == self.labels))


def _logits(runner: Runner, x: np.ndarray) -> np.ndarray:
    batches = (x[start : start + _BATCH] for start in range(0, len(x), _BATCH))
    return np.concatenate(list(runner.logits(batches)))


def _in_memory(source: Source) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(source, ArraySource):
        return source.x, source.y
    x, y = zip(*source.batches(_BATCH), strict=True)
    return np.concatenate(x), np.concatenate(y)
