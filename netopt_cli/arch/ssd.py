"""Single-shot detector (Liu et al., "SSD", 2016) on feature maps of any arch."""

import math

import keras

from netopt_cli import blocks
from netopt_cli.boxes import Anchors
from netopt_cli.contracts import ArchBuilder
from netopt_cli.errors import ArchError
from netopt_cli.graph.rebuild import as_functional

_OFFSETS = 4
_PRIOR = 0.01
"""Probability of an object in the beginning: nearly no anchor has one (Lin et al., 2017)."""


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    anchors: Anchors,
    backbone: ArchBuilder,
    width: blocks.Count = 64,
    convolution: blocks.Convolution = "standard",
    normalization: blocks.Normalization = "batch",
    activation: blocks.Activation = "relu",
) -> keras.Model:
    """Builds a detector: of the backbone, the last feature map of each size that the anchors need;
    where it has none so small, halving convolutions after its smallest one. Each map has a
    convolution, then one for the classes and one for the offsets of its anchors.

    Args:
        shape: (height, width, channels).
        classes: Outputs of each anchor: the classes and four offsets.
        anchors: Of the task.
        backbone: The arch, whose head is left out.
        width: Filters of the convolution over each map.
        convolution: Kind of it.
        normalization: Between convolution and activation.
        activation: Of the same.

    Returns:
        A model from float32 (batch, *shape) to (batch, anchors, classes), anchors in the order of
        `Anchors.boxes`.

    Raises:
        ArchError: When the backbone has no map of the first size that is needed.
    """
    blocks.require_image(shape, arch="ssd")
    body = as_functional(backbone(shape=shape, classes=2))
    sizes = anchors.maps(*shape[:2])
    x = None
    said = []
    for i, (stride, size) in enumerate(zip(anchors.strides, sizes, strict=True), start=1):
        found = _last_map(body, size)
        if found is not None:
            x = found
        elif x is not None and tuple(-(-side // 2) for side in x.shape[1:3]) == size:
            x = blocks.conv_unit(
                x, width, 3, name=f"further_{i}", strides=2, convolution=convolution,
                normalization=normalization, activation=activation,
            )  # fmt: skip
        else:
            raise ArchError(
                f"ssd needs a feature map of {size[0]}x{size[1]} for anchors of stride {stride}, "
                f"or one of twice that before it, and arch.backbone={body.name} has none. It has: "
                f"{', '.join(_sizes(body))}. Change task.strides, the backbone or the images"
            )
        name = f"map_{i}"
        head = blocks.conv_unit(
            x, width, 3, name=name, convolution=convolution, normalization=normalization,
            activation=activation,
        )  # fmt: skip
        said.append(_said(head, anchors.at_each_place, classes - _OFFSETS, name))
    whole = said[0] if len(said) == 1 else keras.layers.Concatenate(1, name="anchors")(said)
    return keras.Model(body.inputs, whole, name="ssd")


def _said(x: keras.KerasTensor, anchors: int, classes: int, name: str) -> keras.KerasTensor:
    """(batch, height, width, filters) -> (batch, all anchors of the map, classes + offsets)."""
    begin = keras.initializers.Constant(-math.log((1 - _PRIOR) / _PRIOR))
    heads = [("classes", classes, begin), ("offsets", _OFFSETS, "zeros")]
    parts = []
    for part, each, bias in heads:
        head = keras.layers.Conv2D(
            anchors * each,
            3,
            padding="same",
            bias_initializer=bias,
            dtype="float32",
            name=f"{name}_{part}",
        )
        parts.append(keras.layers.Reshape((-1, each), name=f"{name}_{part}_list")(head(x)))
    return keras.layers.Concatenate(name=f"{name}_anchors")(parts)


def _maps(body: keras.Model) -> list[keras.KerasTensor]:
    outputs = [layer.output for layer in body.layers if len(layer._inbound_nodes) == 1]
    single = [output for output in outputs if isinstance(output, keras.KerasTensor)]
    return [output for output in single if len(output.shape) == 4]


def _last_map(body: keras.Model, size: tuple[int, int]) -> keras.KerasTensor | None:
    of_size = [output for output in _maps(body) if tuple(output.shape[1:3]) == size]
    return of_size[-1] if of_size else None


def _sizes(body: keras.Model) -> list[str]:
    return list(dict.fromkeys(f"{x.shape[1]}x{x.shape[2]}" for x in _maps(body)))
