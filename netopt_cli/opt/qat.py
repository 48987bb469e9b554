"""Quantization-aware training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field

from netopt_cli.contracts import Context, ExportRecipe, Modifier, Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.fake_quant import calibrate, freeze
from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.quant_rewrite import fake_quantized
from netopt_cli.graph.quantization_risks import without_integer_form

Bits = Annotated[int, Field(ge=2, le=8)]

_CALIBRATION_BATCH = 100


@dataclass(frozen=True)
class Qat:
    """Trains on with weights and activations rounded as in the exported int8 file.

    Weights are symmetric integers with a step for each output channel, BatchNorm folded;
    activations are 8-bit integers, since LiteRT has no kernels for fewer (Jacob et al., 2018;
    Krishnamoorthi, 2018). Zeros stay zero. Weights of fewer bits use as many of the integers that
    int8 has: the file is no smaller, gzip and the packed file are.

    Attributes:
        method: `minmax`: a channel's step follows its largest weight, ranges of activations are
            moving averages that start with the calibrated ones; `lsq`: both are trained (learned
            step size quantization, Esser et al., 2020).
        weight_bits: Of the weights of dense layers and convolutions; of those that a file can hold
            in 8 bits only, 8.
        int4: Whether the file stores weights of at most 4 bits as int4, in half the bytes. LiteRT
            computes them two to three times slower, and rounds results twice, which training does
            not see: predictions agree less.
        layer_bits: Pattern of weight paths -> bits instead (`logits/*`); the first that fits.
        exclude: Patterns of weight paths that training does not round; the file still does.
        freeze_at: Fraction of the training after which BatchNorm uses its moving statistics, and
            moving ranges stay, as they will in the file.
        calibration_samples: Training samples that the first ranges are read from.
        epochs: Epochs of the stage.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    method: Literal["minmax", "lsq"] = "minmax"
    weight_bits: Bits = 8
    int4: bool = False
    layer_bits: Mapping[str, Bits] | None = None
    exclude: tuple[str, ...] = ()
    freeze_at: Annotated[float, Field(ge=0, le=1)] = 0.5
    calibration_samples: Annotated[int, Field(ge=1)] = 500
    epochs: Annotated[int, Field(ge=1)] = 3
    learning_rate: Annotated[float, Field(gt=0)] | None = 0.0003

    def __call__(self, network: Network, context: Context) -> Network:
        network, lines = self._rewritten(network)
        for line in lines:
            context.note(line)
        batches = context.data.training_batches(
            self.calibration_samples, _CALIBRATION_BATCH, context.seed
        )
        calibrate(network.model, (x for x, _ in batches))
        model, memory = network.model, {"frozen": False}

        def freeze_in_time(step: int, total_steps: int) -> None:
            if step >= self.freeze_at * total_steps and not memory["frozen"]:
                freeze(model)
                memory["frozen"] = True

        return context.fit(
            network,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            modifiers=[
                Modifier(
                    "qat",
                    before_steps=freeze_in_time,
                    memory=memory,
                    settles_at=min(self.freeze_at, 0.99),
                )
            ],
        )

    def plan(self, preflight: Preflight) -> Network:
        preflight.refuse_after(
            "fake quantization", "the network is rounded already; keep one of the two"
        )
        if preflight.network.exits is not None:
            raise InputError(
                f"opt: '{preflight.stage}' cannot train a network with early exits: the range of "
                "what one segment hands over would be lost in the next. Use quantize, which "
                "calibrates both"
            )
        refused = without_integer_form(preflight.network.model)
        if refused:
            raise InputError(f"opt: '{preflight.stage}' cannot make an int8 file: {refused[0]}")
        network, _ = self._rewritten(preflight.network)
        return network

    def _rewritten(self, network: Network) -> tuple[Network, list[str]]:
        for key, patterns in (("layer_bits", self.layer_bits or ()), ("exclude", self.exclude)):
            for pattern in patterns:
                if not any(fnmatchcase(path, pattern) for path in kernels(network.model)):
                    raise InputError(
                        f"opt.qat.{key} must fit the path of a weight. Received: '{pattern}'; "
                        f"weights: {', '.join(kernels(network.model))}"
                    )
        model, lines = fake_quantized(
            network.model, bits_of=self._bits_of, method=self.method, int4=self.int4
        )
        return replace(
            network,
            model=model,
            recipe=ExportRecipe("int8", trained_ranges=True),
            properties=network.properties | {"fake quantization"},
        ), lines

    def _bits_of(self, path: str) -> int | None:
        if any(fnmatchcase(path, pattern) for pattern in self.exclude):
            return None
        fitting = (
            bits for pattern, bits in (self.layer_bits or {}).items() if fnmatchcase(path, pattern)
        )
        return next(fitting, self.weight_bits)
