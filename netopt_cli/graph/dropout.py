"""Dropout put into a network that was built without, or set where it has some."""

from typing import Any

import keras

from netopt_cli.errors import ArchError
from netopt_cli.graph.drop_block import DropBlock2D
from netopt_cli.graph.rebuild import head, layers, plain_copy, rebuild

_DROPOUTS = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
_CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
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


def with_spatial_dropout(model: keras.Model, rate: float) -> tuple[keras.Model, list[str]]:
    """Drops whole channels (Tompson et al., 2015) of what each convolution takes in: see
    `_before_convolutions`."""
    return _before_convolutions(model, keras.layers.SpatialDropout2D, "spatial_dropout", rate=rate)


def with_drop_block(
    model: keras.Model, rate: float, block_size: int
) -> tuple[keras.Model, list[str]]:
    """Drops squares of what each convolution takes in: see `DropBlock2D` and
    `_before_convolutions`."""
    return _before_convolutions(model, DropBlock2D, "drop_block", rate=rate, block_size=block_size)


def _before_convolutions(
    model: keras.Model, kind: type[keras.layers.Layer], suffix: str, **config: Any
) -> tuple[keras.Model, list[str]]:
    """Puts a layer before each 2-D convolution that looks around itself and does not read the
    input of the model; where there is one of its kind, that gets the new configuration. Weights,
    and outputs at inference, are kept.

    Returns:
        The rebuilt model and a line for all that was inserted or set.

    Raises:
        ArchError: When there is no such convolution.
    """
    placed: dict[str, keras.layers.Layer] = {}

    def clone(layer: keras.Layer) -> keras.Layer | None:
        return plain_copy(layer, **config) if type(layer) is kind else None

    def call(layer: keras.Layer, new_layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, _CONVOLUTIONS) and max(layer.kernel_size) > 1:
            x, *others = args
            before = x._keras_history.operation
            if type(before) is kind:
                placed[layer.name] = before
            elif not isinstance(before, keras.layers.InputLayer):
                if layer.name not in placed:
                    placed[layer.name] = kind(name=f"{layer.name}_{suffix}", **config)
                args = (placed[layer.name](x), *others)
        return new_layer(*args, **kwargs)

    rebuilt, _ = rebuild(model, clone=clone, call=call)
    if not placed:
        raise ArchError(
            f"{suffix} needs a 2-D convolution behind the first, and model '{model.name}' has "
            "none: use dropout"
        )
    settings = ", ".join(f"{name} {value:g}" for name, value in config.items())
    return rebuilt, [f"{suffix} ({settings}) before {', '.join(placed)}"]
