"""The contracts between the config groups, the engine and the pipeline.

A `Stage` (an `opt`) turns a `Network` into a better one. What it needs of the outside it gets from
its `Context`; what it wants of training it says with `Modifier`s, which combine freely in the one
compiled training step; what later stages must not undo travels in `Network.keeps`.

No TensorFlow is imported here: the configuration side uses these names too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from netopt_cli.errors import InputError

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from netopt_cli.dataset import Dataset
    from netopt_cli.observer import Epoch

NAMED_GROUPS = {"opt": "stage", "tracking": "tracker"}
"""The groups of which a run takes several, each in a section of its name, `opt.prune`; and the word
for one of them."""

ArchBuilder = Callable[..., "keras.Model"]
"""An arch bound to its parameters: called with `shape=` (one sample, channels last) and `classes=`,
it returns a Keras functional model from (batch, *shape) float32 to logits (batch, classes). One
that takes `inputs=` too is for tokens and ids as well: then from (batch, *shape) int32."""


@dataclass(frozen=True)
class Forward:
    """What a training step has computed when its loss is formed, on one replica.

    Attributes:
        x: float32 (batch, *shape), as the network got it.
        y: float32 (batch, classes), a distribution, zeros for a sample that has no label; or what
            the task has as targets.
        logits: float32 (batch, classes), or the outputs of another task.
        taps: The values of the modifier's own `taps`.
        seed: int32 (2,), different for each step, replica and modifier.
    """

    x: tf.Tensor
    y: tf.Tensor
    logits: tf.Tensor
    taps: tuple[tf.Tensor, ...]
    seed: tf.Tensor


@dataclass(frozen=True)
class Modifier:
    """A change to the training step. Every field is optional; modifiers of several origins combine.

    Attributes:
        name: Shown in the log.
        transform_batch: (x, y, seed) -> (x, y), in the graph, before the forward pass. `x` is
            float32 (batch, *shape), normalized; `y` is float32 (batch, classes), a distribution,
            or zeros for a sample that has no label; the batch that is returned may be longer;
            `seed` is int32 (2,), different for each step, replica and modifier: use stateless ops.
        extra_loss: (forward) -> scalar, the mean over the batch, added to the task loss.
        taps: Tensors of the functional model whose values `extra_loss` looks at, as the output of
            a layer is.
        task_loss_weight: Multiplies the task's own loss (the product over all modifiers is used).
        input_gradient: (gradient) -> None, in the graph, before each update: gets the gradient of
            the loss by the step's `x`, float32 (batch, *shape), up to a positive factor.
        proximal: (learning_rate) -> None, in the graph, after each update and before all
            constraints: assigns variables, as far as one step of that size goes.
        constrain: () -> None, in the graph, after each update of the weights: assigns variables.
            Modifiers with `averages` come after all others.
        before_steps: (step, total_steps) -> None, on the host, before each compiled call of several
            steps, at least 50 times a training, and once after the last one; `step` counts the
            steps already done. What it remembers from call to call is in `memory`.
        memory: Plain values (JSON), which a training that was interrupted gets back.
        settles_at: Fraction of the training from which weights may be kept as the best ones; a
            pruning schedule is not finished before.
        variables: Further variables that the optimizer trains with the model's own, by the
            gradient of the whole loss and without weight decay: gates, scores.
        networks: Further networks that are trained in the same step, with weight decay as the
            model has it; `extra_loss` calls them.
        substitute: (seed) -> pairs of a trainable weight of the model and the tensor that stands
            for it in the forward pass of training. Gradients flow through the tensor to whatever
            it was made of. `seed` is as in `transform_batch`. At inference the weight itself
            counts. No two modifiers may substitute the same weight.
        averages: Pairs of a weight of the model and what is validated and kept in its place.
        sharpness_radius: Length of the step uphill from where the gradient is taken; 0 is where
            the weights are (Foret et al., 2021). Each replica goes its own way.
    """

    name: str
    transform_batch: (
        Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None
    ) = None
    extra_loss: Callable[[Forward], tf.Tensor] | None = None
    taps: tuple[keras.KerasTensor, ...] = ()
    task_loss_weight: float = 1.0
    input_gradient: Callable[[tf.Tensor], None] | None = None
    proximal: Callable[[tf.Tensor], None] | None = None
    constrain: Callable[[], None] | None = None
    before_steps: Callable[[int, int], None] | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    settles_at: float = 0.0
    variables: tuple[keras.Variable, ...] = ()
    networks: tuple[keras.Model, ...] = ()
    substitute: Callable[[tf.Tensor], Sequence[tuple[keras.Variable, tf.Tensor]]] | None = None
    averages: tuple[tuple[keras.Variable, keras.Variable], ...] = ()
    sharpness_radius: float = 0.0

    @property
    def trained(self) -> tuple[keras.Variable, ...]:
        """All that the optimizer trains for it."""
        of_networks = (v for network in self.networks for v in network.trainable_variables)
        return (*self.variables, *of_networks)


Keep = Callable[["keras.Model"], Modifier]
"""What a stage made and later training must not undo: builds the modifier for a given model."""


Scheme = Literal[
    "float32",
    "float16",
    "int8",
    "int8x4",
    "int16x8",
    "dynamic",
    "dynamic_int4",
    "weight_int8",
    "weight_int4",
]
"""How a LiteRT file holds its numbers and computes: see `graph.schemes`."""


@dataclass(frozen=True)
class ExportRecipe:
    """How the network becomes a file.

    Attributes:
        scheme: What is quantized, see `graph.schemes`.
        calibration_samples: Training samples that the ranges of activations are read from.
        calibration: How a range follows from what was seen, see `export.ranges`.
        percentile: Of the values seen, those between 100 - percentile and percentile count.
        calibration_sampling: `random`, or `stratified`: as many samples of each class.
        weight_bits: Path of a kernel -> bits other than the scheme's: 4, 8, 16 or 32 (floats).
        bits_where_possible: Whether a kernel of `weight_bits` that conversion makes another weight
            of, as of a table that is looked up at constant places, may have the scheme's bits.
        trained_ranges: The network fake-quantizes itself: its own ranges count, and nothing is
            calibrated.
    """

    scheme: Scheme = "float32"
    calibration_samples: int = 0
    calibration: Literal["minmax", "percentile", "mse"] = "minmax"
    percentile: float = 99.99
    calibration_sampling: Literal["random", "stratified"] = "random"
    weight_bits: Mapping[str, int] = field(default_factory=dict)
    bits_where_possible: bool = False
    trained_ranges: bool = False


@dataclass(frozen=True)
class ExitPolicy:
    """How a network with early exits decides at which one a sample leaves.

    The thresholds are chosen on the validation split, for the exported segments: each file has
    its own. Exactly one of `max_drop` and `target_cost` is given.

    Attributes:
        rule: What must not be above an exit's threshold: `entropy` of its softmax (nats);
            `confidence`: 1 - its largest probability; `patience`: minus the number of exits in a
            row before it that predicted the same class.
        max_drop: Points of validation accuracy that may be lost against the final logits.
        margin: Standard errors of the loss that must fit below `max_drop` besides it.
        target_cost: Mean multiply-accumulates, as a fraction of those of all segments.
    """

    rule: Literal["entropy", "confidence", "patience"] = "entropy"
    max_drop: float | None = 0.5
    margin: float = 1.0
    target_cost: float | None = None


Property = Literal["zeros", "codebook", "fake quantization", "shared weights"]
"""What a stage has given to a network and a later stage could destroy."""


@dataclass(frozen=True)
class Network:
    """A model with what must travel with it through the stages.

    Attributes:
        recipe: How it becomes a file.
        keeps: What later training must not undo.
        properties: What it has that a later stage could destroy: see `Preflight.refuse_after`.
        exits: With early exits, how samples leave: the outputs of the model are then the logits of
            the exits, from the input on, and the final ones last (see `graph.exits`).
        variants: Further networks that a stage made along with this one, by name: each is exported
            by the same recipe and has a row of its own. A later stage that trains or rewrites the
            model leaves them behind.
    """

    model: keras.Model
    recipe: ExportRecipe = field(default_factory=ExportRecipe)
    keeps: tuple[Keep, ...] = ()
    properties: frozenset[Property] = frozenset()
    exits: ExitPolicy | None = None
    variants: Mapping[str, keras.Model] = field(default_factory=dict)


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
    def control_data(self) -> Dataset:
        """What controls train on: the run's data, but where stages have chosen the samples that
        were labelled, as many that were drawn at random."""
        ...

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
        data: Dataset | None = None,
        control_data: Dataset | None = None,
    ) -> Network:
        """Trains `network` and returns it; `network.keeps` join the modifiers by themselves.

        Args:
            learning_rate: Overrides `train.learning_rate`.
            weight_decay: Overrides `train.weight_decay`.
            restart: Says that the weights are new: the equal-budget control starts anew too.
            data: What to train on in place of the run's data, which it is made of; so does the
                equal-budget control.
            control_data: What the control trains on instead, where the stage's choice of samples,
                or what it does without labels, is what it gains by.
        """
        ...

    def buy_labels(self, indices: np.ndarray) -> None:
        """Has the samples of `data.unlabeled` with these indices labelled, which the column
        `labels` counts: from now on they are in `data.train`, for later stages too."""
        ...

    def build(self, arch: ArchBuilder) -> Network:
        """Builds a network with new weights for the run's data, in the scope of its strategy."""
        ...

    def fresh(self) -> Network:
        """The run's own arch with new weights."""
        ...

    def teacher(
        self,
        arch: ArchBuilder,
        *,
        epochs: int,
        data: Dataset | None = None,
    ) -> keras.Model:
        """A trained teacher; trained once a run, and used as it is when `epochs` is 0.

        Args:
            data: What it is trained on in place of the run's data, all of it.
        """
        ...

    def rewound(self, epochs: int) -> Network:
        """The run's own arch as it was after so many epochs of the baseline's training; 0 is the
        start. Those epochs are trained again (same seed, same result), once a run."""
        ...

    def evaluate(self, model: keras.Model) -> float:
        """How well a Keras model does on the validation split: the figure of the task that counts,
        accuracy of a classification; minus it, where lower is better; minus the loss, where the
        split does not have that figure."""
        ...

    def note(self, message: str) -> None:
        """Prints a line for the user and keeps it in the record of the stage."""
        ...


class NetworkBuilder(Protocol):
    """Builds a network for the run's data, for so many of its classes; None for all."""

    def __call__(self, arch: ArchBuilder, classes: int | None = None) -> Network: ...


@dataclass(frozen=True)
class Preflight:
    """What is known before anything is trained, for `Planned.plan`.

    Attributes:
        stage: The name of the stage in `opt`.
        network: The network that the stage will get, as far as the plans of the stages before it
            tell: right in structure, not trained.
        is_first: Whether no stage before it trains.
        build: Builds another network for the run's data.
        made_by: The stage that gave the network each of its properties.
        unlabeled: How many training samples of the run have no label (`Dataset.unlabeled`).
    """

    stage: str
    network: Network
    is_first: bool
    build: NetworkBuilder
    made_by: Mapping[Property, str] = field(default_factory=dict)
    unlabeled: int = 0

    def refuse_after(self, given: Property, reason: str) -> None:
        """Refuses an order of stages that would destroy what an earlier one made.

        Args:
            reason: What would happen, and the order that works.

        Raises:
            InputError: When the network has the property.
        """
        if given in self.network.properties:
            raise InputError(
                f"opt: '{self.stage}' cannot come after '{self.made_by[given]}': {reason}"
            )


@runtime_checkable
class Planned(Protocol):
    """A stage that can tell before the run what will come of it, or that it will not work."""

    def plan(self, preflight: Preflight) -> Network:
        """Returns what the stage will make of `preflight.network`, without training: with the
        shapes, zeros, properties and recipe that it will have. Changes neither the network it is
        given nor its model.

        Raises:
            InputError: The stage cannot work there; say why and what would.
        """
        ...


@runtime_checkable
class Selective(Protocol):
    """A stage that does not make sense for all data."""

    def unsuited(self, data: Dataset) -> str | None:
        """Why it cannot work with these data and this task, if so."""
        ...


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run when it begins.

    Attributes:
        folder: The run directory.
        name: The last part of its path, after the group if there is one.
        group: The name of the seeds or the sweep that the run is one of.
        config: All settings, as plain values.
        tags: What else tells runs apart: `command`, `seed`, `git_commit`, `dataset`,
            `dataset_sha256`.
        epochs: How many epochs the tracker was told of before, if the run goes on.
    """

    folder: Path
    name: str
    group: str | None
    config: Mapping[str, Any]
    tags: Mapping[str, str]
    epochs: int


class Tracker(Protocol):
    """Somebody who is told of a run as it goes on (a `tracking`).

    May raise anything: what it raises in `begin` refuses the run, and after that it is told nothing
    more while the run goes on. A config may be a stranger's: where a tracker writes or connects to
    comes from the environment, never from its parameters.
    """

    def begin(self, run: TrackedRun, known: str | None) -> str | None:
        """Begins, or goes on where a process that was interrupted left it.

        Args:
            known: What `begin` returned in that process. It may have been changed.

        Returns:
            The name under which the tracker finds the run again; None when it needs none.
        """
        ...

    def epoch(self, epoch: Epoch) -> None: ...

    def row(self, row: Mapping[str, Any]) -> None:
        """Tells of a row of metrics.csv."""
        ...

    def end(self, status: str, files: Sequence[Path], models: Sequence[Path]) -> None:
        """Ends.

        Args:
            status: `completed`, `failed` or `interrupted`.
            files: The config, the record and the tables, in the run directory.
            models: The networks of the stages and their files, in folders of the run directory.
        """
        ...


class Stage(Protocol):
    """One optimization step: takes a network and returns the changed one. Never changes data."""

    def __call__(self, network: Network, context: Context) -> Network: ...
