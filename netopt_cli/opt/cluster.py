"""Weight clustering: few distinct values stand for all weights."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import keras
from pydantic import Field

from netopt_cli.contracts import Context, Modifier, Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.clustering import (
    HowToShare,
    Initialization,
    distinct_values,
    keep_codebook,
    share,
    shareable,
)
from netopt_cli.graph.incremental_codebooks import incremental_codebooks
from netopt_cli.graph.rebuild import layers, rebuild


@dataclass(frozen=True)
class Cluster:
    """Replaces the weights by the values of k-means codebooks and trains these values.

    The weights of a cluster are one number, in the stage's training and in every later one (Han et
    al., 2016). The exported file has the same size, since LiteRT stores every weight; the packed
    file and gzip store which value a weight has.

    Attributes:
        clusters: Distinct values of a codebook; zero is one of them when zeros are preserved.
        scope: `layer` has a codebook for each layer, `global` one for all.
        initialization: Of k-means: `linear` over the range, `density` over the weights,
            `kmeans++` at random, far from one another.
        include_biases: Whether biases share their layer's codebook; they keep their own values
            otherwise.
        preserve_zeros: Whether zeros stay as they are, as a cluster of their own; None does when
            an earlier stage has made some.
        assignment: `fixed` puts each weight on the value that k-means gave it and trains the
            values; `incremental` puts them there a few at a time and trains those that are still
            free, which make up for the others (`graph.incremental_codebooks`). Where zeros are
            preserved, weights that are nearest to zero join them.
        epochs: Epochs of training the codebooks; 0 leaves the values of k-means.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
        exclude: Patterns of weight paths to leave alone (`logits/*`).
    """

    clusters: Annotated[int, Field(ge=2, le=256)] = 16
    scope: Literal["layer", "global"] = "layer"
    initialization: Initialization = "linear"
    include_biases: bool = False
    preserve_zeros: bool | None = None
    assignment: Literal["fixed", "incremental"] = "fixed"
    epochs: Annotated[int, Field(ge=0)] = 3
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.assignment == "incremental" and not self.epochs:
            raise ValueError(
                "assignment=incremental trains on the way and needs epochs >= 1. Received: epochs=0"
            )

    def __call__(self, network: Network, context: Context) -> Network:
        if self.assignment == "incremental":
            network = self._fit(network, context, self._incremental(network, context.seed))
            groups = [list(group) for group in self._groups(network.model)]
        else:
            groups = self._share(network, network.model, context.seed)
        network = replace(
            network,
            keeps=(*network.keeps, keep_codebook(groups)),
            properties=network.properties | {"codebook"},
        )
        if self.assignment == "fixed" and self.epochs:
            network = self._fit(network, context)
        chosen = self._chosen(network.model)
        counts = ", ".join(f"{path} {n}" for path, n in distinct_values(chosen).items())
        context.note(f"{len(groups)} codebook(s); distinct values: {counts}")
        normalized = [
            layer.name
            for layer in layers(network.model)
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        if normalized:
            context.note(
                f"the export multiplies {len(normalized)} normalizations ({normalized[0]}, …) into "
                "their kernels, a factor for each channel: the file has more distinct values"
            )
        return network

    def plan(self, preflight: Preflight) -> Network:
        preflight.refuse_after(
            "fake quantization",
            "its trained grids would not hold the codebook's values; put "
            f"'{preflight.stage}' before it",
        )
        if self.preserve_zeros is False:
            preflight.refuse_after(
                "zeros",
                f"its zeros would move; leave opt.{preflight.stage}.preserve_zeros at null",
            )
        network = preflight.network
        model, _ = rebuild(network.model)
        self._share(network, model, seed=0)
        return replace(network, model=model, properties=network.properties | {"codebook"})

    def _fit(self, network: Network, context: Context, *modifiers: Modifier) -> Network:
        return context.fit(
            network, epochs=self.epochs, learning_rate=self.learning_rate, modifiers=modifiers
        )

    def _share(self, network: Network, model: keras.Model, seed: int) -> list[list[str]]:
        """Clusters `model` in place; returns the paths of each codebook's weights."""
        groups = self._groups(model)
        for group in groups:
            share(list(group.values()), self.clusters, **self._how(network, seed))
        return [list(group) for group in groups]

    def _incremental(self, network: Network, seed: int) -> Modifier:
        groups = [list(group.values()) for group in self._groups(network.model)]
        return incremental_codebooks(groups, self.clusters, **self._how(network, seed))

    def _how(self, network: Network, seed: int) -> HowToShare:
        automatic = "zeros" in network.properties
        return {
            "preserve_zeros": automatic if self.preserve_zeros is None else self.preserve_zeros,
            "initialization": self.initialization,
            "seed": seed,
        }

    def _groups(self, model: keras.Model) -> list[dict[str, keras.Variable]]:
        """The weights of each codebook by path."""
        groups: dict[str, dict[str, keras.Variable]] = defaultdict(dict)
        for path, variable in self._chosen(model).items():
            layer = path.rpartition("/")[0]
            groups[layer if self.scope == "layer" else "all"][path] = variable
        return list(groups.values())

    def _chosen(self, model: keras.Model) -> dict[str, keras.Variable]:
        everything = shareable(model, biases=self.include_biases)
        chosen = {
            path: variable
            for path, variable in everything.items()
            if not any(fnmatchcase(path, pattern) for pattern in self.exclude)
        }
        if not chosen:
            raise InputError(
                "opt.cluster.exclude leaves no weight to cluster. "
                f"Received: {list(self.exclude)}; weights: {', '.join(everything)}"
            )
        return chosen
