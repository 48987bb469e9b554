"""Unstructured and N:M pruning: which weights go, when, and how those that stay are trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated, Literal

import keras
import numpy as np
from pydantic import Field

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.errors import InputError, did_you_mean
from netopt_cli.graph import saliency
from netopt_cli.graph.batch_norm import recalibrate
from netopt_cli.graph.gates import HardConcrete, Learned, Movement, WeightNoise, learning
from netopt_cli.graph.kernels import keep_zeros, kernels, sparsity_of
from netopt_cli.graph.masked_training import MaskedTraining
from netopt_cli.graph.masks import (
    Masks,
    NOfM,
    Pattern,
    Unstructured,
    in_full,
    input_axes,
)
from netopt_cli.graph.ramp import ramp
from netopt_cli.graph.rebuild import rebuild
from netopt_cli.graph.reinitialize import reinitialize
from netopt_cli.graph.response import TaskLoss, scan, spread

_LEARNED = ("movement", "l0", "variational")
_ROUNDS = ("iterative", "lottery")
_BATCH = 64
_MILDEST, _DEEPER, _LEVELS = 0.75, 8, 8
"""What is left of a kernel in the scan of `sensitivity`: from the first part down to a `_DEEPER`-th
of what the stage leaves, in so many levels."""
_SANITY = {
    "shuffle_mask": "the mask is shuffled within each layer, the weights of before train under it",
    "reinitialize": "new weights train under the mask",
}

Sparsity = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Prune:
    """Sets the least important weights to zero and trains the others.

    The zeros travel with the network: no later stage fills them. A sparse file is smaller once
    compressed; it is not faster on a runtime without sparse kernels. At least one weight of each
    layer stays.

    The learned criteria (`movement`, `l0`, `variational`) spend `ramp_fraction` of the epochs on
    learning what matters; then the weights that rank lowest go until the sparsity is reached, and
    the others are trained. They want an adaptive optimizer.

    SNIP as it was published, at initialization, is `criterion=snip schedule=lottery rounds=1`.

    Attributes:
        sparsity: Fraction of the kernels' weights that end as zero; with `n_of_m` it is 1 - n / m.
        weights_left: How many of the kernels' weights stay, in place of `sparsity`: a count is the
            same file whatever the stages before have removed. A network that has no more of them
            is left whole.
        criterion: What is important. `magnitude` (Han et al., 2015); `lamp` (Lee et al., 2021), the
            magnitude made comparable across layers; `snip` (Lee et al., 2019), weight times
            gradient; `taylor` (Molchanov et al., 2019), the same batch by batch; `movement` (Sanh
            et al., 2020), which in short trainings does better with `one_shot`; `l0`, hard-concrete
            gates (Louizos et al., 2018); `variational` dropout (Molchanov et al., 2017); `random`,
            the control.
        scope: `global` lets the weights of all layers compete, `layerwise` prunes each alike.
            `sensitivity` prunes most where the loss on training samples rises least when that layer
            alone loses its smallest weights (`graph.response`); validation samples choose the
            epoch, so they are not asked.
        layer_sparsity: Pattern of weight paths -> sparsity of each such layer by itself; the first
            pattern that matches counts.
        pattern: `unstructured`, or `n_of_m`: of each `m` consecutive inputs of a unit, `n` stay.
        schedule: `one_shot` at the first step; `polynomial`: s(t) = s (1 - (1 - t / t_end)^3) (Zhu
            and Gupta, 2017); `iterative`: rounds that each remove the same share of what is left;
            `lottery`: such rounds, before each of which the weights go back to those of
            `rewind_epoch` (Frankle and Carbin, 2019; Frankle et al., 2020).
        ramp_fraction: Part of the training in which `polynomial` reaches the final sparsity, or
            in which the learned criteria learn.
        rounds: Of `iterative` and `lottery`.
        rewind_epoch: Epoch of the baseline's training that `lottery` goes back to; 0 is its start.
        epochs: Of the stage in all; of each round of `lottery`, as each starts anew.
        learning_rate: Peak of the schedule of each training; None is that of `train`.
        penalty: Factor of the penalty for each training sample: of `l0` the expected number of open
            gates in excess, of `variational` the KL divergence.
        scoring_samples: Training samples that `snip`, `taylor`, `sensitivity` and the
            re-calibration look at.
        recalibrate_batch_norm: Estimates the statistics of BatchNorm anew in the end.
        sanity_check: Replaces the result by a control. `shuffle_mask` shuffles the final mask
            within each layer and trains the weights of before under it; `reinitialize` trains new
            weights under the final mask.
        exclude: Patterns of weight paths to leave alone (`logits/*`).
    """

    sparsity: Sparsity = 0.8
    weights_left: Annotated[int, Field(ge=1)] | None = None
    criterion: Literal[
        "magnitude", "lamp", "snip", "taylor", "movement", "l0", "variational", "random"
    ] = "magnitude"
    scope: Literal["global", "layerwise", "sensitivity"] = "global"
    layer_sparsity: Mapping[str, Sparsity] | None = None
    pattern: Literal["unstructured", "n_of_m"] = "unstructured"
    n: Annotated[int, Field(ge=1)] = 2
    m: Annotated[int, Field(ge=2)] = 4
    schedule: Literal["one_shot", "polynomial", "iterative", "lottery"] = "polynomial"
    ramp_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.6
    rounds: Annotated[int, Field(ge=1)] = 5
    rewind_epoch: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(ge=1)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    penalty: Annotated[float, Field(ge=0)] = 1.0
    scoring_samples: Annotated[int, Field(ge=1)] = 512
    recalibrate_batch_norm: bool = True
    sanity_check: Literal["none", "shuffle_mask", "reinitialize"] = "none"
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pattern == "n_of_m" and self.n >= self.m:
            raise ValueError(f"n must be below m. Received: n={self.n}, m={self.m}")
        if self.pattern == "n_of_m" and self.layer_sparsity:
            raise ValueError(
                "layer_sparsity cannot be met with pattern=n_of_m, which prunes every layer to "
                f"1 - n / m. Received: layer_sparsity={dict(self.layer_sparsity)}"
            )
        if self.weights_left is not None and (self.pattern == "n_of_m" or self.layer_sparsity):
            raise ValueError(
                "weights_left counts the weights of all layers together and works with neither "
                "pattern=n_of_m nor layer_sparsity, which say what each layer keeps. "
                f"Received: weights_left={self.weights_left}"
            )
        if self.pattern == "n_of_m" and self.scope == "sensitivity":
            raise ValueError(
                "scope=sensitivity spreads a sparsity over the layers; pattern=n_of_m has the same "
                "in each, 1 - n / m. Use pattern=unstructured"
            )
        if self.criterion in _LEARNED and self.schedule in _ROUNDS:
            raise ValueError(
                f"criterion={self.criterion} is learned once and works with schedule=polynomial or "
                f"one_shot. Received: schedule={self.schedule}"
            )
        if self.criterion in _LEARNED and self.epochs < 2:
            raise ValueError(
                f"epochs must be >= 2 with criterion={self.criterion}: one to learn what matters, "
                f"one to train what stays. Received: epochs={self.epochs}"
            )
        if self.schedule == "iterative" and self.epochs < self.rounds:
            raise ValueError(
                "epochs must be >= rounds with schedule=iterative. "
                f"Received: epochs={self.epochs}, rounds={self.rounds}"
            )

    def __call__(self, network: Network, context: Context) -> Network:
        targets = self._targets(network.model, {})
        for line in targets.left:
            context.note(line)
        work = MaskedTraining(
            network,
            context,
            targets.kernels,
            targets.pattern,
            learning_rate=self.learning_rate,
            scoring_samples=self.scoring_samples,
        )
        if self.scope == "sensitivity":
            work.pattern = self._targets(network.model, self._spread(work)).pattern
        if self.criterion in _LEARNED:
            self._learn_then_prune(work)
        elif self.schedule in _ROUNDS:
            self._prune_in_rounds(work)
        elif self.schedule == "polynomial":
            self._prune_gradually(work)
        else:
            work.prune(self._importance(work)())
            work.train(self.epochs)
        if self.sanity_check != "none":
            self._replace_by_control(work)
        if self.recalibrate_batch_norm and recalibrate(network.model, work.batches):
            context.note("BatchNorm re-calibrated")
        self._report(work, context)
        return replace(
            network,
            keeps=(*network.keeps, keep_zeros(list(targets.kernels))),
            properties=network.properties | {"zeros"},
        )

    def plan(self, preflight: Preflight) -> Network:
        preflight.refuse_after(
            "codebook", "zeros would break up the values that weights share; prune first"
        )
        if self.schedule == "lottery" and not preflight.is_first:
            raise InputError(
                f"opt.{preflight.stage}.schedule=lottery goes back to weights of the baseline and "
                "would throw away what the stages before it made: put it first, or use "
                f"opt.{preflight.stage}.schedule=iterative"
            )
        network = preflight.network
        model, _ = rebuild(network.model)
        targets = self._targets(model, {})
        size = sum(math.prod(weight.shape) for weight in targets.weights)
        if self.weights_left is not None and self.weights_left >= size:
            raise InputError(
                f"opt.{preflight.stage}.weights_left must be below the {size:,} weights that there "
                f"are to prune. Received: {self.weights_left:,}"
            )
        masks = Masks(targets.weights, keep_zeros="zeros" in network.properties)
        masks.draw(targets.pattern, saliency.magnitude(targets.weights)(), in_full)
        masks.apply()
        return replace(network, model=model, properties=network.properties | {"zeros"})

    # When it is pruned

    def _prune_gradually(self, work: MaskedTraining) -> None:
        importance = self._importance(work)
        pruning = ramp(self.ramp_fraction, lambda so_far: work.prune(importance(), so_far))
        work.train(self.epochs, pruning)

    def _prune_in_rounds(self, work: MaskedTraining) -> None:
        is_lottery = self.schedule == "lottery"
        if is_lottery:
            work.start = work.context.rewound(self.rewind_epoch).model.get_weights()
        importance = self._importance(work)
        ends = np.linspace(0, self.epochs, self.rounds + 1).round().astype(int)
        for number, epochs in enumerate(np.diff(ends).tolist(), start=1):
            if is_lottery and self.criterion == "snip":
                work.go_back()  # Which judges weights that are not trained yet.
            work.prune(importance(), partial(_geometric, done=number / self.rounds))
            if is_lottery:
                work.go_back()
            work.train(self.epochs if is_lottery else epochs, restart=is_lottery)

    def _learn_then_prune(self, work: MaskedTraining) -> None:
        learned = self._learned(work)
        drawing = ramp(1.0, lambda so_far: work.draw(learned.scores(), so_far))
        epochs = min(self.epochs - 1, max(1, round(self.ramp_fraction * self.epochs)))
        gradual = self.schedule == "polynomial"
        learn = learning(learned, work.weights, work.masks)
        work.fit(epochs, learn, *([drawing] if gradual else []))
        work.context.note(f"after {epochs} epochs of learning, {learned.summary()}")
        learned.settle()
        work.draw(learned.scores())
        work.masks.apply()
        work.train(self.epochs - epochs)

    def _replace_by_control(self, work: MaskedTraining) -> None:
        model = work.network.model
        model.set_weights(work.start)
        if self.sanity_check == "shuffle_mask":
            generator = np.random.default_rng([work.context.seed, 1])
            work.masks.assign(work.pattern.shuffled(work.masks.values, generator))
        else:
            reinitialize(model, work.context.seed + 2)
        work.masks.apply()
        work.context.note(f"sanity check: {_SANITY[self.sanity_check]}")
        is_new = self.sanity_check == "reinitialize" or self.schedule == "lottery"
        work.train(self.epochs, restart=is_new)

    def _report(self, work: MaskedTraining, context: Context) -> None:
        how = self.scope if self.pattern == "unstructured" else f"{self.n}:{self.m}"
        context.note(
            f"{sparsity_of(work.weights):.1%} of {sum(m.size for m in work.masks.values):,} "
            f"weights in {len(work.weights)} kernels are zero ({self.criterion}, {how})"
        )
        for path, mask in zip(work.kernels, work.masks.values, strict=True):
            if mask.sum() == 1 < mask.size:
                context.note(f"{path}: only its most important weight stays, the floor")

    # By what it is pruned

    def _importance(self, work: MaskedTraining) -> saliency.Importance:
        if self.criterion == "magnitude":
            return saliency.magnitude(work.weights)
        if self.criterion == "lamp":
            return saliency.lamp(work.weights)
        if self.criterion == "random":
            return saliency.random(work.weights, work.context.seed)
        of_data = saliency.snip if self.criterion == "snip" else saliency.taylor
        task = work.context.data.task
        return of_data(task, work.network.model, work.weights, work.batches)

    def _learned(self, work: MaskedTraining) -> Learned:
        if self.criterion == "movement":
            return Movement(work.weights)
        factor = self.penalty / len(work.context.data.train)
        if self.criterion == "l0":
            return HardConcrete(work.weights, sparsity=work.final_sparsity, factor=factor)
        return WeightNoise(work.weights, factor=factor)

    # What is pruned

    def _spread(self, work: MaskedTraining) -> dict[str, float]:
        """Returns path -> sparsity of every kernel that has none of its own."""
        found = {
            path: kernel
            for path, kernel in work.kernels.items()
            if not any(fnmatchcase(path, pattern) for pattern in self.layer_sparsity or ())
        }
        sparsity = self._sparsity_of(work.kernels.values())
        left = np.geomspace(_MILDEST, (1.0 - sparsity) / _DEEPER, _LEVELS)
        loss = TaskLoss(work.context.data.task, work.network.model, work.batches)
        curves = scan(work.network.model, "prune", (1.0 - left).tolist(), loss, only=found)
        sizes = {path: math.prod(kernel.shape) for path, kernel in found.items()}
        costs = {path: partial(_weights_left, size) for path, size in sizes.items()}
        chosen = spread(curves, costs, (1.0 - sparsity) * sum(sizes.values()))
        text = ", ".join(f"{path} {sparsity:.1%}" for path, sparsity in chosen.items())
        work.context.note(f"sparsity by sensitivity: {text}")
        return chosen

    def _targets(self, model: keras.Model, spread_over: Mapping[str, float]) -> _Targets:
        everything = kernels(model)
        if not everything:
            raise InputError(
                f"opt.prune needs trainable kernels, and model '{model.name}' has none: Dense, "
                "convolution, recurrent, attention and embedding layers have them"
            )
        chosen = {
            path: kernel
            for path, kernel in everything.items()
            if not any(fnmatchcase(path, pattern) for pattern in self.exclude)
        }
        if not chosen:
            raise InputError(
                "opt.prune.exclude leaves no weight to prune. "
                f"Received: {list(self.exclude)}; weights: {', '.join(everything)}"
            )
        if self.pattern == "unstructured":
            return _Targets(chosen, self._unstructured(chosen, spread_over))
        return self._n_of_m(model, chosen)

    def _sparsity_of(self, weights: Iterable[keras.Variable]) -> float:
        if self.weights_left is None:
            return self.sparsity
        return max(0.0, 1.0 - self.weights_left / sum(math.prod(w.shape) for w in weights))

    def _unstructured(
        self, chosen: Mapping[str, keras.Variable], spread_over: Mapping[str, float]
    ) -> Unstructured:
        paths, sparsity = list(chosen), self._sparsity_of(chosen.values())
        of_layers = self.layer_sparsity or {}
        for pattern in of_layers:
            if not any(fnmatchcase(path, pattern) for path in paths):
                raise InputError(
                    "opt.prune.layer_sparsity must name weights that are pruned. "
                    f"Received: '{pattern}'.{did_you_mean(pattern, paths)}"
                )
        groups: list[tuple[tuple[int, ...], float]] = []
        competing: list[int] = []
        for index, path in enumerate(paths):
            own = [s for pattern, s in of_layers.items() if fnmatchcase(path, pattern)]
            if own:
                groups.append(((index,), own[0]))
            elif path in spread_over:
                groups.append(((index,), spread_over[path]))
            elif self.scope == "layerwise":
                groups.append(((index,), sparsity))
            else:
                competing.append(index)
        if competing:
            groups.append((tuple(competing), sparsity))
        return Unstructured(tuple(groups))

    def _n_of_m(self, model: keras.Model, chosen: dict[str, keras.Variable]) -> _Targets:
        fitting: dict[str, keras.Variable] = {}
        axes: list[int] = []
        left: list[str] = []
        every_axis = input_axes(model, list(chosen.values()))
        for (path, kernel), axis in zip(chosen.items(), every_axis, strict=True):
            if axis is None:
                left.append(f"{path}: left as it is, no axis of inputs is known that it sums over")
            elif kernel.shape[axis] % self.m:
                left.append(
                    f"{path}: left as it is, m={self.m} does not divide its "
                    f"{kernel.shape[axis]} inputs"
                )
            else:
                fitting[path] = kernel
                axes.append(axis)
        if not fitting:
            raise InputError(f"opt.prune.pattern=n_of_m fits no weight. {'; '.join(left)}")
        return _Targets(fitting, NOfM(self.n, self.m, tuple(axes)), left)


@dataclass(frozen=True)
class _Targets:
    """The kernels by path, how their masks are drawn, and what is left as it is and why."""

    kernels: dict[str, keras.Variable]
    pattern: Pattern
    left: list[str] = field(default_factory=list)

    @property
    def weights(self) -> list[keras.Variable]:
        return list(self.kernels.values())


def _weights_left(size: int, sparsity: float) -> float:
    return size * (1.0 - sparsity)


def _geometric(sparsity: float, done: float) -> float:
    """The sparsity after a part of the rounds, each of which removes the same share."""
    return 1.0 - (1.0 - sparsity) ** done
