"""Post-training quantization of the exported file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from netopt_cli.contracts import Context, ExportRecipe, Network


@dataclass(frozen=True)
class Quantize:
    """Exports int8 weights and activations from now on; the Keras model stays float32.

    Weights get a scale for each channel, activations one for each tensor, from the range seen on
    training samples (Jacob et al., 2018; the LiteRT 8-bit specification).

    Attributes:
        scheme: `int8`: weights, activations, input and output.
        calibration_samples: Training samples that the ranges are read from.
    """

    scheme: Literal["int8"] = "int8"
    calibration_samples: Annotated[int, Field(ge=1)] = 200

    def __call__(self, network: Network, context: Context) -> Network:
        samples = min(self.calibration_samples, len(context.data.train))
        context.note(f"{self.scheme} file, calibrated on {samples} training samples")
        return replace(network, recipe=ExportRecipe(self.scheme, samples))
