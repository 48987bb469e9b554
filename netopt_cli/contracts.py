"""The contracts between the config groups, the engine and the pipeline.

A `Stage` (an `opt`) turns a `Network` into a better one. What it needs of the outside it gets from
its `Context`; what it wants of training it says with `Modifier`s, which combine freely in the one
compiled training step; what later stages must not undo travels in `Network.keeps`.

No TensorFlow is imported here: the configuration side uses these names too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from netopt_cli.dataset import Dataset

ArchBuilder = Callable[..., "keras.Model"]
"""An arch bound to its parameters: called with `shape=` (one sample, channels last) and `classes=`,
it returns a Keras functional model from (batch, *shape) float32 to logits (batch, classes)."""


@dataclass(frozen=True)
class Modifier:
    """A change to the training step. Every field is optional; modifiers of several origins combine.

    Attributes:
        name: Shown in the log.
        transform_batch: (x, y, seed) -> (x, y), in the graph, before the forward pass. `x` is
            float32 (batch, *shape), normalized; `y` is float32 (batch, classes), a distribution;
            `seed` is int32 (2,), different for each step, replica and modifier: use stateless ops.
        extra_loss: (x, y, logits) -> scalar, the mean over the batch, added to the task loss.
        task_loss_weight: Multiplies the task's own loss (the product over all modifiers is used).
        constrain: () -> None, in the graph, after each update of the weights: assigns variables.
        before_steps: (step, total_steps) -> None, on the host, before each compiled call of several
            steps, at least 50 times a training, and once after the last one; `step` counts the
            steps already done.
        settles_at: Fraction of the training from which weights may be kept as the best ones; a
            pruning schedule is not finished before.
    """

    name: str
    transform_batch: (
        Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None
    ) = None
    extra_loss: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor] | None = None
    task_loss_weight: float = 1.0
    constrain: Callable[[], None] | None = None
    before_steps: Callable[[int, int], None] | None = None
    settles_at: float = 0.0


Keep = Callable[["keras.Model"], Modifier]
"""What a stage made and later training must not undo: builds the modifier for a given model."""


@dataclass(frozen=True)
class ExportRecipe:
    """How the network becomes a file.

    Attributes:
        scheme: `float32`, or `int8`: weights and activations, post-training, calibrated on
            `calibration_samples` training samples.
    """

    scheme: Literal["float32", "int8"] = "float32"
    calibration_samples: int = 0


@dataclass(frozen=True)
class Network:
    """A model with what must travel with it through the stages."""

    model: keras.Model
    recipe: ExportRecipe = field(default_factory=ExportRecipe)
    keeps: tuple[Keep, ...] = ()


@dataclass(frozen=True)
class Timing:
    """How the exported file is timed.

    Attributes:
        device: `cpu` (XNNPACK) or `cpu_reference` (LiteRT's own kernels, no delegate).
        threads: Threads of the runtime.
        warmup_runs: Inferences that are not counted.
        timed_runs: Inferences whose median and 90th percentile are reported.
    """

    device: Literal["cpu", "cpu_reference"] = "cpu"
    threads: int = 1
    warmup_runs: int = 50
    timed_runs: int = 500


@dataclass(frozen=True)
class Target:
    """Where the network trains and where its file is timed."""

    name: str
    strategy: tf.distribute.Strategy
    timing: Timing
    threads: int | None = None
    worker: int = 0
    workers: int = 1

    @property
    def is_chief(self) -> bool:
        return self.worker == 0


class Context(Protocol):
    """What a stage may ask of the run."""

    @property
    def data(self) -> Dataset: ...

    @property
    def seed(self) -> int: ...

    @property
    def epochs(self) -> int:
        """Epochs of the baseline's training (`train.epochs`)."""
        ...

    @property
    def is_first(self) -> bool:
        """True while no stage has trained: the weights are those of the plain baseline."""
        ...

    def fit(
        self,
        network: Network,
        *,
        epochs: int,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        modifiers: Sequence[Modifier] = (),
        restart: bool = False,
    ) -> Network:
        """Trains `network` and returns it; `network.keeps` join the modifiers by themselves.

        Args:
            learning_rate: Overrides `train.learning_rate`.
            weight_decay: Overrides `train.weight_decay`.
            restart: Says that the weights are new: the equal-budget control starts anew too.
        """
        ...

    def build(self, arch: ArchBuilder) -> Network:
        """Builds a network with new weights for the run's data, in the scope of its strategy."""
        ...

    def fresh(self) -> Network:
        """The run's own arch with new weights."""
        ...

    def teacher(self, arch: ArchBuilder, *, epochs: int) -> keras.Model:
        """A trained teacher; trained once a run, and used as it is when `epochs` is 0."""
        ...

    def note(self, message: str) -> None:
        """Prints a line for the user and keeps it in the record of the stage."""
        ...


@dataclass(frozen=True)
class Preflight:
    """What is known before anything is trained, for `Checked.check`.

    Attributes:
        network: The run's own network, not trained yet.
        is_first: Whether it is the first stage of the pipeline.
        build: Builds another network for the run's data.
    """

    network: Network
    is_first: bool
    build: Callable[[ArchBuilder], Network]


@runtime_checkable
class Checked(Protocol):
    """A stage that can tell before the run that it will not work."""

    def check(self, preflight: Preflight) -> None:
        """Raises InputError; changes nothing."""
        ...


class Stage(Protocol):
    """One optimization step: takes a network and returns the changed one. Never changes data."""

    def __call__(self, network: Network, context: Context) -> Network: ...
