"""Bits for each layer by what it answers to fewer of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import keras
import numpy as np
from pydantic import Field

from netopt_cli.contracts import Context, ExportRecipe, Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.quantization_risks import loops
from netopt_cli.graph.quantizers import (
    LogitsDistance,
    channel_axes,
    quantize_symmetric,
    quantized_weights,
)
from netopt_cli.graph.response import Curve, scan, spread
from netopt_cli.graph.schemes import ARITHMETIC, WEIGHT_BITS, kept_float, weight_bits

_WIDTHS = (16, 8, 4)
_TRIED_BUDGETS = 16
_TOLD_LAYERS = 8


@dataclass(frozen=True)
class MixedPrecision:
    """Gives each kernel 4, 8 or 16 bits (or leaves it float32) in the exported file.

    Each kernel alone is rounded to each number of bits, and how far the predictions move on
    training samples is its sensitivity (KL divergence: Cai et al., "ZeroQ", 2020). Then bits are
    taken where a saved byte costs the least, until the weights are within the budget. Nothing is
    trained. What has no 4-bit kernel in LiteRT keeps 8, and so does what conversion makes another
    weight of; the bits of each layer in the record are read from the file.

    Attributes:
        size_fraction: Most bytes of the weights, as a fraction of those with 8 bits each; 4 bits
            everywhere are 0.5. Not used when `max_drop` is given.
        max_drop: Points of validation accuracy that rounding the weights may cost: the smallest
            weights within it are taken. None goes by `size_fraction`.
        scheme: Of the activations, as in opt=quantize: `int8`, `dynamic` or `weight_int8`.
        scoring_samples: Training samples on which predictions are compared.
        calibration_samples: Training samples that the ranges of `int8` are read from.
        exclude: Patterns of weight paths that stay float32 (`logits/*`).
    """

    size_fraction: Annotated[float, Field(gt=0, le=4)] = 0.6
    max_drop: Annotated[float, Field(ge=0, le=100)] | None = None
    scheme: Literal["int8", "dynamic", "weight_int8"] = "int8"
    scoring_samples: Annotated[int, Field(ge=1)] = 512
    calibration_samples: Annotated[int, Field(ge=1)] = 200
    exclude: tuple[str, ...] = ()

    def __call__(self, network: Network, context: Context) -> Network:
        model = network.model
        samples = self.scoring_samples
        x, _ = next(context.data.training_batches(samples, samples, context.seed))
        distance = LogitsDistance(model, x, are_logits=context.data.task.is_classification)
        curves = scan(model, "bits", _WIDTHS, distance, self._free(model))
        sizes = _Sizes(model, self.scheme)
        if self.max_drop is None:
            bits = self._within(curves, sizes, self.size_fraction * sizes.at_8_bits)
        else:
            bits = self._within_drop(model, curves, sizes, context, self.max_drop)
        if network.recipe.scheme != "float32":
            context.note(f"replaces the {network.recipe.scheme} file of an earlier stage")
        for line in _lines(bits, curves, sizes):
            context.note(line)
        return self._network(network, bits, len(context.data.train))

    def plan(self, preflight: Preflight) -> Network:
        preflight.refuse_after(
            "fake quantization",
            "it exports bits that it trained; give them by opt.qat.layer_bits and leave "
            f"'{preflight.stage}' out",
        )
        network = preflight.network
        looping = loops(network.model)
        if looping and ARITHMETIC[self.scheme] == "integer":
            raise InputError(
                f"opt: '{preflight.stage}' cannot export scheme={self.scheme}: {looping[0]} runs "
                "as a loop, which cannot be calibrated. Build the layer with unroll=True, or use "
                "scheme=dynamic"
            )
        sizes = _Sizes(network.model, self.scheme)
        least = sizes.of(dict.fromkeys(self._free(network.model), 4)) / sizes.at_8_bits
        if self.max_drop is None and self.size_fraction < least:
            raise InputError(
                f"opt.mixed_precision.size_fraction must be at least {least:.3f} for this network: "
                f"the weights with 4 bits where they can have them. Received: {self.size_fraction}"
            )
        # Weights are not trained yet: rounding errors stand for sensitivities.
        fraction = self.size_fraction if self.max_drop is None else max(1.0, least)
        curves = _by_rounding_error(network.model, self._free(network.model))
        bits = self._within(curves, sizes, fraction * sizes.at_8_bits)
        return self._network(network, bits, self.calibration_samples)

    def _free(self, model: keras.Model) -> list[str]:
        """The kernels whose bits are chosen."""
        kept = kept_float(model, self.exclude, "opt.mixed_precision.exclude")
        return [path for path in kernels(model) if path not in kept]

    def _within(self, curves: Mapping[str, Curve], sizes: _Sizes, budget: float) -> dict[str, int]:
        """The bits of every free kernel with which all weights are within a budget, in bytes."""
        left = budget - sizes.of_others(curves)
        chosen = spread(curves, {path: sizes.cost(path) for path in curves}, left, between=False)
        return {path: int(level) for path, level in chosen.items()}

    def _within_drop(
        self,
        model: keras.Model,
        curves: Mapping[str, Curve],
        sizes: _Sizes,
        context: Context,
        max_drop: float,
    ) -> dict[str, int]:
        """The smallest weights with which validation accuracy falls by at most so many points."""
        before = context.evaluate(model)
        least = sizes.of(dict.fromkeys(curves, 4))
        most = sizes.of(dict.fromkeys(curves, 16))
        tried: list[dict[str, int]] = []
        for budget in np.linspace(least, most, _TRIED_BUDGETS):
            bits = self._within(curves, sizes, float(budget))
            if bits in tried:
                continue
            tried.append(bits)
            with quantized_weights(model, weight_bits(model, self.scheme, bits)):
                drop = 100 * (before - context.evaluate(model))
            if drop <= max_drop + 1e-9:
                break
        context.note(
            f"rounding the weights costs {drop:.2f} points of validation accuracy "
            f"(at most {max_drop:g} asked for; {len(tried)} choices of bits tried)"
        )
        return bits

    def _network(self, network: Network, bits: Mapping[str, int], available: int) -> Network:
        kept = kept_float(network.model, self.exclude, "opt.mixed_precision.exclude")
        other = {path: b for path, b in bits.items() if b != WEIGHT_BITS[self.scheme]}
        is_integer = ARITHMETIC[self.scheme] == "integer"
        return replace(
            network,
            recipe=ExportRecipe(
                self.scheme,
                calibration_samples=min(self.calibration_samples, available) * is_integer,
                weight_bits={**other, **kept},
                bits_where_possible=not kept,
            ),
        )


class _Sizes:
    """Bytes of the kernels in a file, by bits; scales and biases not counted."""

    def __init__(self, model: keras.Model, scheme: Literal["int8", "dynamic", "weight_int8"]):
        self._elements = {path: v.numpy().size for path, v in kernels(model).items()}
        # What the file has when so many bits are asked for.
        self._bits = {
            asked: weight_bits(model, scheme, dict.fromkeys(self._elements, asked))
            for asked in (*_WIDTHS, 32)
        }

    @property
    def at_8_bits(self) -> float:
        return sum(self.cost(path)(8) for path in self._elements)

    def cost(self, path: str) -> Callable[[float], float]:
        return lambda bits: self._elements[path] * self._bits[int(bits)][path] / 8

    def of(self, bits: Mapping[str, int]) -> float:
        """Bytes of all kernels; those without bits are float32."""
        return sum(self.cost(path)(bits.get(path, 32)) for path in self._elements)

    def of_others(self, chosen: Mapping[str, object]) -> float:
        return sum(self.cost(path)(32) for path in self._elements if path not in chosen)


def _by_rounding_error(model: keras.Model, paths: list[str]) -> dict[str, Curve]:
    found, axes = kernels(model), channel_axes(model)
    curves = {}
    for path in paths:
        kernel = found[path].numpy()
        rounded = [quantize_symmetric(kernel, bits, axes[path]) for bits in _WIDTHS]
        errors = [float(np.sum((kernel - each) ** 2)) for each in rounded]
        curves[path] = Curve((32, *_WIDTHS), (0.0, *np.maximum.accumulate(errors)))
    return curves


def _lines(bits: Mapping[str, int], curves: Mapping[str, Curve], sizes: _Sizes) -> list[str]:
    """What was chosen: the total, and the most sensitive kernels with their bits."""
    counts = ", ".join(
        f"{sum(b == width for b in bits.values())} with {width}"
        for width in sorted(set(bits.values()))
    )
    sensitive = sorted(curves, key=lambda path: -curves[path].damages[-1])[:_TOLD_LAYERS]
    total = sizes.of(bits)
    return [
        f"kernels by bits: {counts}; {total / sizes.at_8_bits:.0%} of the bytes of 8 bits each",
        "most sensitive to 4 bits: " + ", ".join(f"{p} (has {bits[p]})" for p in sensitive),
    ]
