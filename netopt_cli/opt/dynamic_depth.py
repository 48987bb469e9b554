"""Residual blocks that run for the samples that need them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf
from pydantic import Field

from netopt_cli.contracts import Context, Forward, Modifier, Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.residual import ResidualBlock, residual_blocks
from netopt_cli.graph.skippable import Gate, skippable_blocks, with_fixed_gates, with_gates

_BATCH = 256


@dataclass(frozen=True)
class DynamicDepth:
    """Puts a gate before each residual block, which runs or skips it (Wang et al., 2018, SkipNet).

    loss = task + penalty · (executed / target - 1)², where `executed` is the share of the blocks'
    multiply-accumulates that a batch runs. Blocks with an identity branch get a gate.

    A gate that decides alike for all validation samples is fixed in the end: its block is part of
    the file, or left out of it. Further rows tell what the same network costs with all blocks
    and with none of them. LiteRT runs what is inside its operation IF without XNNPACK, so
    that skipping pays only where most samples skip; gates that are fixed cost nothing.

    Attributes:
        target: Share of the blocks' multiply-accumulates to be run.
        penalty: Factor of the cost in the loss.
        hidden: Units of a gate's hidden layer.
        epochs: Epochs of the stage.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    target: Annotated[float, Field(gt=0, lt=1)] = 0.5
    penalty: Annotated[float, Field(gt=0)] = 1.0
    hidden: Annotated[int, Field(ge=1)] = 16
    epochs: Annotated[int, Field(ge=1)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        blocks = _blocks(network.model)
        costs = np.array([block.macs for block in blocks], np.float32)
        model = with_gates(network.model, blocks, self.hidden)
        gates = tuple(block.output[1] for block in skippable_blocks(model))
        network = context.fit(
            replace(network, model=model),
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            modifiers=[self._penalty(gates, costs / costs.sum())],
        )
        opened = _opened(network.model, gates, context)
        names = [block.add.name for block in blocks]
        for name, share in zip(names, opened, strict=True):
            context.note(f"{name}: runs for {share:.1%} of the validation samples{_fixed(share)}")
        context.note(
            f"runs {opened @ costs / costs.sum():.1%} of the blocks' multiply-accumulates, a mean "
            f"of {opened @ costs:,.0f} of {costs.sum():,.0f}"
        )
        always: dict[str, Gate] = {n: "open" for n, s in zip(names, opened, strict=True) if s == 1}
        never: dict[str, Gate] = {n: "closed" for n, s in zip(names, opened, strict=True) if s == 0}
        return replace(
            network,
            model=with_fixed_gates(network.model, always | never),
            variants={
                "all blocks": with_fixed_gates(network.model, dict.fromkeys(names, "open")),
                "no block": with_fixed_gates(network.model, dict.fromkeys(names, "closed")),
            },
        )

    def plan(self, preflight: Preflight) -> Network:
        preflight.refuse_after(
            "fake quantization", "a block that may be skipped has no int8 form in LiteRT"
        )
        model = preflight.network.model
        return replace(preflight.network, model=with_gates(model, _blocks(model), self.hidden))

    def _penalty(self, gates: tuple[keras.KerasTensor, ...], shares: np.ndarray) -> Modifier:
        def extra_loss(step: Forward) -> tf.Tensor:
            executed = tf.add_n(
                [
                    share * tf.reduce_mean(gate)
                    for share, gate in zip(shares, step.taps, strict=True)
                ]
            )
            return self.penalty * tf.square(executed / self.target - 1.0)

        return Modifier("dynamic depth", extra_loss=extra_loss, taps=gates, settles_at=0.5)


def _blocks(model: keras.Model) -> list[ResidualBlock]:
    blocks = residual_blocks(model)
    if not blocks:
        raise InputError(
            "opt.dynamic_depth needs residual blocks whose shortcut is the identity; the model "
            f"'{model.name}' has none. arch=resnet and arch=mobilenet have some"
        )
    return blocks


def _fixed(share: float) -> str:
    return ": its gate is fixed, and costs nothing" if share in (0.0, 1.0) else ""


def _opened(
    model: keras.Model, gates: tuple[keras.KerasTensor, ...], context: Context
) -> np.ndarray:
    """The share of the validation samples that each gate lets through."""
    decided = keras.Model(model.inputs, list(gates))
    data = context.data
    parts = [
        np.stack([np.atleast_1d(gate) for gate in keras.tree.flatten(decided.predict_on_batch(x))])
        for x, _ in data.normalized_batches(data.validation, _BATCH)
    ]
    return np.concatenate(parts, axis=1).mean(axis=1)
