"""Unstructured magnitude pruning with a gradual schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import keras
import numpy as np
import tensorflow as tf
from pydantic import Field

from netopt_cli.contracts import Context, Modifier, Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.kernels import keep_zeros, kernels, sparsity_of


@dataclass(frozen=True)
class Prune:
    """Sets the weights of smallest magnitude to zero while training goes on.

    The sparsity follows s(t) = s_end (1 - (1 - t / t_end)^3) (Zhu and Gupta, 2017), then the
    surviving weights are fine-tuned. The zeros travel with the network: no later stage fills them.
    A sparse file is smaller once compressed; it is not faster on a runtime without sparse kernels.

    Attributes:
        sparsity: Fraction of the kernels' weights that end as zero.
        scope: `global` compares the magnitudes of all layers, `layerwise` prunes each alike.
        schedule: `polynomial`, or `one_shot` at the first step.
        ramp_fraction: Part of the training in which `polynomial` reaches the final sparsity.
        epochs: Epochs of the stage.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
        exclude: Patterns of weight paths to leave alone (`logits/*`).
    """

    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.8
    scope: Literal["global", "layerwise"] = "global"
    schedule: Literal["polynomial", "one_shot"] = "polynomial"
    ramp_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.6
    epochs: Annotated[int, Field(ge=1)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    exclude: tuple[str, ...] = ()

    def __call__(self, network: Network, context: Context) -> Network:
        chosen = self._chosen(network.model)
        pruning = _Pruning(self, list(chosen.values()))
        modifier = Modifier(
            "prune",
            before_steps=pruning.update,
            constrain=pruning.constrain,
            settles_at=self.ramp_fraction if self.schedule == "polynomial" else 0.0,
        )
        network = context.fit(
            network, epochs=self.epochs, learning_rate=self.learning_rate, modifiers=[modifier]
        )
        achieved = sparsity_of([kernels(network.model)[path] for path in chosen])
        context.note(
            f"{achieved:.1%} of {sum(v.numpy().size for v in chosen.values()):,} weights in "
            f"{len(chosen)} kernels are zero ({self.scope})"
        )
        return replace(network, keeps=(*network.keeps, keep_zeros(list(chosen))))

    def plan(self, preflight: Preflight) -> Network:
        self._chosen(preflight.network.model)
        return preflight.network

    def _chosen(self, model: keras.Model) -> dict[str, keras.Variable]:
        everything = kernels(model)
        chosen = {
            path: variable
            for path, variable in everything.items()
            if not any(fnmatchcase(path, pattern) for pattern in self.exclude)
        }
        if not chosen:
            raise InputError(
                "opt.prune.exclude leaves no weight to prune. "
                f"Received: {list(self.exclude)}; weights: {', '.join(everything)}"
            )
        return chosen


class _Pruning:
    """The masks of one training and their schedule."""

    def __init__(self, settings: Prune, variables: Sequence[keras.Variable]) -> None:
        self._settings = settings
        self._variables = variables
        self._masks = [
            tf.Variable(tf.ones(tuple(v.shape), v.dtype), trainable=False) for v in variables
        ]
        self._sparsity = 0.0

    def update(self, step: int, total_steps: int) -> None:
        """Draws the masks anew when the schedule has moved on."""
        ramp_steps = max(1.0, self._settings.ramp_fraction * total_steps)
        progress = min(1.0, step / ramp_steps)
        if self._settings.schedule == "one_shot":
            progress = 1.0
        sparsity = self._settings.sparsity * (1.0 - (1.0 - progress) ** 3)
        if sparsity <= self._sparsity:
            return
        self._sparsity = sparsity
        magnitudes = [np.abs(v.numpy()) for v in self._variables]
        if self._settings.scope == "global":
            kept = _largest(np.concatenate([m.ravel() for m in magnitudes]), sparsity)
            cuts = np.cumsum([m.size for m in magnitudes])[:-1]
            masks = np.split(kept, cuts)
        else:
            masks = [_largest(m.ravel(), sparsity) for m in magnitudes]
        for variable, mask, kept in zip(self._variables, self._masks, masks, strict=True):
            mask.assign(kept.reshape(mask.shape).astype(mask.dtype.as_numpy_dtype))
            variable.assign(variable * mask)

    def constrain(self) -> None:
        for variable, mask in zip(self._variables, self._masks, strict=True):
            variable.assign(variable * mask)


def _largest(magnitudes: np.ndarray, sparsity: float) -> np.ndarray:
    """Returns a mask that is False for exactly round(sparsity * n) smallest magnitudes."""
    drop = round(sparsity * magnitudes.size)
    mask = np.ones(magnitudes.size, bool)
    mask[np.argpartition(magnitudes, drop - 1)[:drop] if drop else []] = False
    return mask
