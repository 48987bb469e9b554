"""Dropout put into a network that was built without, or set where it has some."""

from typing import Any

import keras

from netopt_cli.errors import ArchError
from netopt_cli.graph.rebuild import head, layers, plain_copy, rebuild

_DROPOUTS = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)


def with_dropout(model: keras.Model, rate: float) -> tuple[keras.Model, list[str]]:
    """Sets the rate of every dropout layer, or inserts one before the head when there is none.

    Weights are kept, so that the outputs at inference do not change.

    Args:
        model: Functional or Sequential, nested models included.
        rate: In [0, 1).

    Returns:
        The rebuilt model and what was changed, a line each; no line when nothing had to change.

    Raises:
        ArchError: When the rate is out of range, or there is neither dropout nor a head.
    """
    if not 0 <= rate < 1:
        raise ArchError(f"The dropout rate must be in [0, 1). Received: rate={rate}")
    existing = [layer for layer in layers(model) if isinstance(layer, _DROPOUTS)]
    changes = [
        f"{layer.name}: dropout rate {layer.rate:g} → {rate:g}"
        for layer in existing
        if layer.rate != rate
    ]
    last = head(model)
    inserts = not existing and rate > 0
    if inserts:
        if last is None:
            raise ArchError(
                f"Model '{model.name}' has no dropout layer and no Dense or convolution head to "
                "insert one before"
            )
        changes.append(f"{last.name}_dropout: inserted before {last.name}, rate {rate:g}")

    def clone(layer: keras.Layer) -> keras.Layer | None:
        return plain_copy(layer, rate=rate) if isinstance(layer, _DROPOUTS) else None

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if inserts and layer is last:
            x, *others = args
            args = (keras.layers.Dropout(rate, name=f"{last.name}_dropout")(x), *others)
        return new_layer(*args, **kwargs)

    rebuilt, _ = rebuild(model, clone=clone, call=call)
    return rebuilt, changes
