"""Post-training quantization of the exported file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from netopt_cli.contracts import Context, ExportRecipe, Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.quantization_risks import (
    loops,
    quantization_risks,
    without_integer_form,
)
from netopt_cli.graph.schemes import ARITHMETIC, WEIGHT_BITS, kept_float, weight_bits

_TOLD_RISKS = 2


@dataclass(frozen=True)
class Quantize:
    """Exports rounded numbers from now on; the Keras model stays float32, and nothing is trained.

    Weights get a scale for each output channel, activations one for each tensor, from what was seen
    on training samples (Jacob et al., 2018; the LiteRT 8-bit specification). A second stage of this
    kind replaces the first.

    Attributes:
        scheme: `int8`: weights, activations, input and output. `int8x4`: the same with weights of 4
            bits; `int16x8`: activations of 16 bits, which LiteRT computes slowly. `dynamic`: int8
            weights, activations float between layers and rounded to 8 bits within; `dynamic_int4`:
            the same with weights of 4 bits. `weight_int8`, `weight_int4`, `float16`: the file is
            small, the arithmetic float. What has no 4-bit kernel in LiteRT has 8 bits.
        calibration: A range from what was seen: `minmax` all of it, `percentile` without the
            outermost values, `mse` the part with the smallest rounding error.
        percentile: Of the values, those from 100 - percentile to percentile % count.
        calibration_samples: Training samples that the ranges are read from.
        calibration_sampling: `random`, or `stratified`: as many samples of each class.
        exclude: Patterns of weight paths that stay float32 (`logits/*`).
    """

    scheme: Literal[
        "int8",
        "int8x4",
        "int16x8",
        "dynamic",
        "dynamic_int4",
        "weight_int8",
        "weight_int4",
        "float16",
    ] = "int8"
    calibration: Literal["minmax", "percentile", "mse"] = "minmax"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    calibration_samples: Annotated[int, Field(ge=1)] = 200
    calibration_sampling: Literal["random", "stratified"] = "random"
    exclude: tuple[str, ...] = ()

    def __call__(self, network: Network, context: Context) -> Network:
        recipe = self._recipe(network, len(context.data.train))
        if network.recipe.scheme != "float32":
            context.note(f"replaces the {network.recipe.scheme} file of an earlier stage")
        context.note(f"{self._description(network, recipe)}")
        for risk in quantization_risks(network.model)[:_TOLD_RISKS] if self._is_integer else ():
            context.note(f"may quantize badly: {risk}")
        return replace(network, recipe=recipe)

    def plan(self, preflight: Preflight) -> Network:
        preflight.refuse_after(
            "fake quantization",
            "it exports int8 already, with the ranges that it trained; leave "
            f"'{preflight.stage}' out",
        )
        looping = loops(preflight.network.model)
        if looping and self._is_integer:
            raise InputError(
                f"opt: '{preflight.stage}' cannot export scheme={self.scheme}: {looping[0]} runs "
                "as a loop, which cannot be calibrated. Build the layer with unroll=True, or use "
                "scheme=dynamic"
            )
        refused = without_integer_form(preflight.network.model)
        if refused and self._is_integer:
            raise InputError(
                f"opt: '{preflight.stage}' cannot export scheme={self.scheme}: {refused[0]}. Use "
                "scheme=weight_int8 or scheme=float16"
            )
        return replace(
            preflight.network,
            recipe=self._recipe(preflight.network, self.calibration_samples),
        )

    @property
    def _is_integer(self) -> bool:
        return ARITHMETIC[self.scheme] == "integer"

    def _recipe(self, network: Network, available: int) -> ExportRecipe:
        return ExportRecipe(
            self.scheme,
            calibration_samples=min(self.calibration_samples, available) * self._is_integer,
            calibration=self.calibration,
            percentile=self.percentile,
            calibration_sampling=self.calibration_sampling,
            weight_bits=kept_float(network.model, self.exclude, "opt.quantize.exclude"),
        )

    def _description(self, network: Network, recipe: ExportRecipe) -> str:
        calibrated = (
            f", calibrated on {recipe.calibration_samples} training samples "
            f"({self.calibration_sampling}, {self.calibration})"
        )
        bits = weight_bits(network.model, self.scheme)
        wider = [path for path, width in bits.items() if width > WEIGHT_BITS[self.scheme]]
        return (
            f"{self.scheme} file"
            + (calibrated if self._is_integer else "")
            + (f"; float32: {', '.join(recipe.weight_bits)}" if recipe.weight_bits else "")
            + (f"; not below {bits[wider[0]]} bits: {', '.join(wider)}" if wider else "")
        )
