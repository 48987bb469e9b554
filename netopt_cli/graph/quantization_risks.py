"""What in a network quantizes badly, or cannot be exported with integer activations at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import keras
import numpy as np

from netopt_cli.graph.calls import Edges
from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.quantizers import channel_axes, owners
from netopt_cli.graph.rebuild import activation_of, head, layers, tail

WIDE = 30.0
"""Largest over smallest range of channels from which it is told: 5 of 8 bits are lost."""
_SHOWN = 3
_DEPTHWISE = (
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
_UNFOLDABLE = (
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.UnitNormalization,
    keras.layers.RMSNormalization,
)
_ATTENTION = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
)
_BOUNDED = {"linear", "relu6", "sigmoid", "hard_sigmoid", "tanh", "softmax", "log_softmax"}


def loops(model: keras.Model) -> list[str]:
    """Returns the names of the recurrent layers that run as a loop: `unroll=True` undoes it."""
    return [
        layer.name
        for layer in _flat(model)
        if isinstance(layer, keras.layers.RNN) and not layer.unroll
    ]


def without_integer_form(model: keras.Model) -> list[str]:
    """Returns a line for each layer that says, in `netopt_integer_refusal`, why a file with
    integer activations cannot have it."""
    return [
        f"{layer.name} {layer.netopt_integer_refusal}"
        for layer in _flat(model)
        if getattr(layer, "netopt_integer_refusal", None)
    ]


def quantization_risks(model: keras.Model) -> list[str]:
    """Names what in a network loses accuracy in 8 bits or fewer, a line a cause, worst first.

    The causes are those of Krishnamoorthi (2018, arXiv:1806.08342) and Nagel et al. (2021,
    arXiv:2106.08295): ranges without a bound, channels of very different ranges behind one scale of
    the activations, normalizations that cannot be folded, operations on small values.

    Args:
        model: Functional or Sequential; its weights count too.

    Returns:
        Lines for the user; empty when nothing was found.
    """
    found = list(_flat(model))
    edges = Edges(model)
    ends = {id(layer) for layer in (head(model), *tail(model))}
    causes = [
        (
            loops(model),
            "a loop cannot be calibrated: no scheme with integer activations exports it",
        ),
        (
            list(_wide_kernels(model, edges)),
            f"channels whose ranges differ {WIDE:g} times and more share the scale of what they "
            "compute",
        ),
        (
            _names(found, _DEPTHWISE),
            "few weights a channel, and never below 8 bits in the file",
        ),
        (
            _names(found, _UNFOLDABLE),
            "a normalization that cannot be folded multiplies small values in 8 bits",
        ),
        (
            [
                layer.name
                for layer in found
                if isinstance(layer, keras.layers.BatchNormalization) and not _folds(layer, edges)
            ],
            "it follows no convolution or dense layer and stays an operation of its own",
        ),
        (
            [*_names(found, _ATTENTION), *_inner_softmax(found, ends)],
            "a softmax inside the network has 256 steps between 0 and 1",
        ),
        (
            [
                layer.name
                for layer in found
                if activation_of(layer) not in {None, *_BOUNDED} and id(layer) not in ends
            ],
            "an activation without bound takes its range from outliers; opt=quantize_friendly "
            "bounds it",
        ),
    ]
    return [f"{_listed(names)}: {why}" for names, why in causes if names]


def _flat(model: keras.Model) -> Iterator[keras.Layer]:
    """Yields the layers with those inside of wrappers."""
    for layer in layers(model):
        if isinstance(layer, (keras.layers.Wrapper, keras.layers.Bidirectional)):
            yield from (inner for inner in layer._flatten_layers() if inner is not layer)
        else:
            yield layer


def _wide_kernels(model: keras.Model, edges: Edges) -> Iterator[str]:
    """Yields the layers whose output channels, BatchNorm folded in, have very different ranges."""
    axes, owner = channel_axes(model), owners(model)
    for path, variable in kernels(model).items():
        layer = owner[path]
        if layer is None or isinstance(layer, keras.layers.Embedding):
            continue
        kernel = variable.numpy()
        channels = {axis % kernel.ndim for axis in axes[path]}
        rest = tuple(axis for axis in range(kernel.ndim) if axis not in channels)
        ranges = np.abs(kernel).max(axis=rest).ravel()
        norm = edges.only_user(layer)
        if isinstance(norm, keras.layers.BatchNormalization) and norm.scale:
            factor = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
            if factor.size == ranges.size:
                ranges = ranges * np.abs(factor)
        alive = ranges[ranges > 0]  # Pruned channels need no scale.
        if alive.size and alive.max() > WIDE * alive.min():
            yield layer.name


def _folds(norm: keras.layers.BatchNormalization, edges: Edges) -> bool:
    source = edges.only_source(norm)
    return source is not None and activation_of(source) == "linear"


def _inner_softmax(found: Iterable[keras.Layer], ends: set[int]) -> list[str]:
    return [
        layer.name for layer in found if activation_of(layer) == "softmax" and id(layer) not in ends
    ]


def _names(found: Iterable[keras.Layer], kinds: tuple[type[keras.Layer], ...]) -> list[str]:
    return [layer.name for layer in found if isinstance(layer, kinds)]


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
