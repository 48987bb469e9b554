"""What a fake-quantized network is asked for as a whole: its quantizers, calibration, freezing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import keras
import numpy as np

from netopt_cli.graph.quant_activation import FakeQuantize
from netopt_cli.graph.quant_layer import QuantizedLayer


def quantizers(model: keras.Model) -> Iterator[FakeQuantize | QuantizedLayer]:
    """Yields the fake-quantizing layers of a model and of those nested in it."""
    for layer in model._flatten_layers():
        if isinstance(layer, FakeQuantize | QuantizedLayer):
            yield layer


def quantizer_state(model: keras.Model) -> list[keras.Variable]:
    """Returns the variables that only say how a model is rounded: ranges, steps, switches.

    They are no parameters of the network: an exported file has them as scales.
    """
    return [
        variable
        for layer in quantizers(model)
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables)
    ]


def calibrate(model: keras.Model, batches: Iterable[np.ndarray]) -> None:
    """Sets the ranges of activations to those seen on samples, without any rounding of them.

    Args:
        model: Fake-quantized; changed in place.
        batches: float32 (batch, *shape), normalized.
    """
    watching = [
        layer for layer in quantizers(model) if isinstance(layer, FakeQuantize) and not layer.limits
    ]
    for layer in watching:
        layer.calibration(True)
    try:
        for x in batches:
            model(x, training=False)
    finally:
        for layer in watching:
            layer.calibration(False)


def freeze(model: keras.Model) -> None:
    """Lets BatchNorm statistics and moving ranges stay as they are from now on."""
    for layer in quantizers(model):
        frozen = getattr(layer, "frozen", None)
        if frozen is not None:
            frozen.assign(1.0)
