"""Structured pruning: channels, units and heads are really removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import keras
import numpy as np
from pydantic import Field

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.batch_norm import recalibrate
from netopt_cli.graph.channel_choice import Bounds, Choice, Quantity, Scope, choose
from netopt_cli.graph.channels import ChannelGraph, read_channels
from netopt_cli.graph.importance import Criterion, importance_of
from netopt_cli.graph.surgery import remove
from netopt_cli.tasks import Task

_BATCH = 64


@dataclass(frozen=True)
class Structured:
    """Removes the channels that matter least from the graph, with all that belongs to them.

    What depends on a channel goes with it: the filters of every convolution that an Add ties to it,
    its BatchNorm parameters, the inputs of the layers after it (dependency groups: Fang et al.,
    DepGraph, 2023). The file is smaller and faster by itself. Layers without a rule are left alone,
    and their neighbours keep what they feed them.

    Attributes:
        ratio: Fraction of `of` to remove.
        of: `macs` or `params` of the whole model, or the `channels` that can be removed.
        criterion: What makes a channel important: `l1`, `l2` norm of all its weights; `bn_scale`
            its BatchNorm factor; `taylor` the estimated change of the loss; `geometric_median`
            its distance to the other channels; `random`, the control.
        scope: `global` lets the channels of all layers compete: norms after division by their mean
            in the group, `taylor` by the loss for each MAC or parameter saved; `layerwise` takes
            the same fraction of each.
        schedule: `one_shot`, or `iterative`: in `rounds` of pruning and training.
        rounds: Of `iterative`; the epochs are shared out among them.
        epochs: Epochs of the stage, all rounds together; 0 does not train.
        learning_rate: Peak of the schedule of each round; None is that of `train`.
        round_to: Channels that stay are a multiple of it.
        min_channels: That stay in every layer at least.
        max_ratio: Of the channels of one layer at most.
        exclude: Patterns of layers whose channels stay (`conv_1`, `block_*`).
        scoring_samples: Training samples that `taylor` looks at.
        recalibration_samples: Training samples that BatchNorm's statistics are estimated on anew
            after each cut; 0 keeps them.
        sanity_check: `none`, or `reinitialize`: the same architecture trained from new weights, the
            control of what the inherited weights are worth (Liu et al., 2019).
    """

    ratio: Annotated[float, Field(ge=0, lt=1)] = 0.5
    of: Quantity = "macs"
    criterion: Criterion = "taylor"
    scope: Scope = "global"
    schedule: Literal["one_shot", "iterative"] = "one_shot"
    rounds: Annotated[int, Field(ge=2)] = 3
    epochs: Annotated[int, Field(ge=0)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    round_to: Annotated[int, Field(ge=1)] = 1
    min_channels: Annotated[int, Field(ge=1)] = 2
    max_ratio: Annotated[float, Field(gt=0, le=1)] = 0.95
    exclude: tuple[str, ...] = ()
    scoring_samples: Annotated[int, Field(ge=_BATCH)] = 1024
    recalibration_samples: Annotated[int, Field(ge=0)] = 1024
    sanity_check: Literal["none", "reinitialize"] = "none"

    def __call__(self, network: Network, context: Context) -> Network:
        before = network.model
        rounds = self.rounds if self.schedule == "iterative" else 1
        for number in range(1, rounds + 1):
            network = self._cut(network, context, self._ratio_at(number, rounds))
            epochs = self.epochs * number // rounds - self.epochs * (number - 1) // rounds
            if self.sanity_check == "none" and epochs:
                network = self._fit(network, context, epochs, restart=False)
        self._tell_widths(before, network.model, context)
        if self.sanity_check == "reinitialize":
            new = keras.models.clone_model(network.model)
            context.note("sanity check: the same architecture from new weights")
            network = self._fit(
                replace(network, model=new), context, self.epochs or context.epochs, restart=True
            )
        return network

    def plan(self, preflight: Preflight) -> Network:
        preflight.refuse_after(
            "fake quantization", "it would cut through the quantizers: put it before"
        )
        model = preflight.network.model
        graph = read_channels(model)
        scores = self._scores(model, graph, "l1", iter(()), seed=0)
        choice = self._choose(model, graph, scores, self.ratio)
        return replace(preflight.network, model=remove(model, graph, choice.removed))

    def _ratio_at(self, number: int, rounds: int) -> float:
        """The fraction to remove in one round, of what is left, so that the last one ends right."""
        return 1.0 - (1.0 - self.ratio) ** (1.0 / rounds)

    def _cut(self, network: Network, context: Context, ratio: float) -> Network:
        model = network.model
        graph = read_channels(model)
        batches = context.data.training_batches(self.scoring_samples, _BATCH, context.seed)
        scores = self._scores(
            model, graph, self.criterion, batches, seed=context.seed, task=context.data.task
        )
        choice = self._choose(model, graph, scores, ratio)
        self._tell_limits(graph, scores, choice, ratio, context)
        smaller = remove(model, graph, choice.removed)
        if self.recalibration_samples:
            samples = self.recalibration_samples
            recalibrate(smaller, context.data.training_batches(samples, _BATCH, context.seed))
        return replace(network, model=smaller)

    def _fit(self, network: Network, context: Context, epochs: int, *, restart: bool) -> Network:
        return context.fit(
            network, epochs=epochs, learning_rate=self.learning_rate, restart=restart
        )

    def _scores(
        self,
        model: keras.Model,
        graph: ChannelGraph,
        criterion: Criterion,
        batches: Iterator[tuple[np.ndarray, np.ndarray]],
        *,
        seed: int,
        task: Task | None = None,
    ) -> dict[str, np.ndarray]:
        """Group -> importance of its units, for the groups that may shrink."""
        importance = importance_of(criterion, model, graph, batches, seed, task=task)
        found = {}
        for group in graph.groups:
            names = {group.name, *group.layers}
            if any(fnmatchcase(name, pattern) for name in names for pattern in self.exclude):
                continue
            scores = importance(group)
            if scores is not None:
                comparable = self.scope == "layerwise" or criterion in ("taylor", "random")
                found[group.name] = scores if comparable else scores / (scores.mean() or 1.0)
        if not found:
            self._refuse(graph, criterion)
        return found

    def _refuse(self, graph: ChannelGraph, criterion: Criterion) -> None:
        groups = ", ".join(group.name for group in graph.groups)
        if not groups:
            left = "; ".join(f"{layer}: {reason}" for layer, reason in graph.protected[:5])
            raise InputError(f"opt.structured: no channel of the model can be removed. {left}")
        if criterion == "bn_scale":
            raise InputError(
                "opt.structured.criterion=bn_scale needs channels with a BatchNorm, and none of "
                f"{groups} has one. Use opt.structured.criterion=l2 or taylor"
            )
        raise InputError(
            "opt.structured.exclude leaves no channel to remove. "
            f"Received: {list(self.exclude)}; layers: {groups}"
        )

    def _choose(
        self, model: keras.Model, graph: ChannelGraph, scores: dict[str, np.ndarray], ratio: float
    ) -> Choice:
        return choose(
            model,
            graph,
            scores,
            ratio=ratio,
            of=self.of,
            scope=self.scope,
            bounds=Bounds(self.min_channels, self.max_ratio, self.round_to),
            per_cost=self.criterion == "taylor" and self.scope == "global",
        )

    def _tell_limits(
        self,
        graph: ChannelGraph,
        scores: dict[str, np.ndarray],
        choice: Choice,
        ratio: float,
        context: Context,
    ) -> None:
        for layer, reason in graph.protected:
            context.note(f"{layer}: left alone, {reason}")
        unscored = [g.name for g in graph.groups if g.name not in scores]
        if unscored and self.criterion == "bn_scale":
            context.note(f"left alone, no BatchNorm or excluded: {', '.join(unscored)}")
        if choice.at_floor:
            context.note(
                f"at the floor (min_channels={self.min_channels}, max_ratio={self.max_ratio:g}): "
                f"{', '.join(choice.at_floor)}"
            )
        if choice.reached < ratio - 0.005:
            context.note(
                f"only {choice.reached:.1%} of the {self.of} could be removed, not {ratio:.1%}: "
                "the rest is fixed, excluded or at its floor"
            )

    def _tell_widths(self, before: keras.Model, after: keras.Model, context: Context) -> None:
        old = {group.name: group.size for group in read_channels(before).groups}
        new = {group.name: group.size for group in read_channels(after).groups}
        # A group of one unit that is left has no name any more: nothing of it can be removed.
        widths = [f"{name} {size} → {new.get(name, 1)}" for name, size in old.items()]
        context.note(f"channels: {', '.join(widths)}")
