"""The bias of classes that a network was never shown, set on samples that have them.

A student that learns from a teacher's predictions alone, on samples without some class, comes to
know that class, but thinks it rare. G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a
Neural Network" (2015), section 3, raise its bias until the accuracy is best.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from netopt_cli.errors import InputError

_SWEEPS = 3
"""How often each class is set, as the best bias of one depends on those of the others."""


def output_bias(model: keras.Model) -> keras.Variable:
    """Returns the bias that is added to the logits, (classes,).

    Raises:
        InputError: The last layer is not one that adds a bias to what it returns.
    """
    layer = model.outputs[-1]._keras_history.operation
    bias = getattr(layer, "bias", None)
    classes = model.outputs[-1].shape[-1]
    is_plain = getattr(layer, "activation", None) in (None, keras.activations.linear)
    if bias is None or tuple(bias.shape) != (classes,) or not is_plain:
        raise InputError(
            f"the bias of a class can be set where the last layer is dense, with a bias and no "
            f"activation. Received: '{layer.name}' ({type(layer).__name__}) of '{model.name}'"
        )
    return bias


def best_offsets(logits: np.ndarray, y: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Returns what to add to the logits so that most samples are classified right, (classes,)
    float32; 0 for every class but `classes`.

    Exact for one class; several are set in turn.

    Args:
        logits: float32 (n, all classes).
        y: int (n,), the true classes.
    """
    offsets = np.zeros(logits.shape[1], np.float32)
    for _ in range(_SWEEPS if len(classes) > 1 else 1):
        for label in classes:
            offsets[label] += _best_offset(logits + offsets, y, label)
    return offsets


def _best_offset(logits: np.ndarray, y: np.ndarray, label: int) -> float:
    others = np.delete(logits, label, axis=1)
    names = np.delete(np.arange(logits.shape[1]), label)
    # A sample is said to be of the class once the offset is above its margin: right from there on
    # when it is of the class, wrong from there on when it was right before.
    margins = others.max(axis=1) - logits[:, label]
    gains = (y == label).astype(int) - (names[others.argmax(axis=1)] == y)
    order = np.argsort(margins, kind="stable")
    edges = np.concatenate([[margins[order[0]] - 1], margins[order], [margins[order[-1]] + 1]])
    right = np.concatenate([[0], np.cumsum(gains[order])])  # after so many of the samples
    widths = np.diff(edges)
    right = np.where(widths > 0, right, np.iinfo(int).min)
    # Of the best stretches the widest one, and its middle: furthest from any mistake.
    best = np.flatnonzero(right == right.max())
    widest = best[np.argmax(widths[best])]
    return float((edges[widest] + edges[widest + 1]) / 2)


def recall(logits: np.ndarray, y: np.ndarray, label: int) -> float:
    """The share of a class's samples that are said to be of it."""
    return float(np.mean(logits[y == label].argmax(axis=1) == label))
