"""1-D convolutions over a series (Wang, Yan and Oates, 2017, arXiv:1611.06455)."""

import keras

from netopt_cli import blocks
from netopt_cli.errors import ArchError


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    filters: blocks.Counts = (64, 128, 64),
    kernel_sizes: blocks.Counts = (8, 5, 3),
    strides: blocks.Count = 1,
    activation: blocks.Activation = "relu",
    normalization: blocks.Normalization = "batch",
    dropout: blocks.Rate = 0.0,
    per_step: bool = False,
) -> keras.Model:
    """Builds convolutions along the steps and the logits of the mean over them, or of each step.

    With the defaults the paper's network at half its width.

    Args:
        shape: (steps, features); (height, width, channels) of images and spectra, of which each row
            is a step.
        classes: Number of logits.
        filters: Of the convolutions, in order.
        kernel_sizes: Steps that each of them sees, as many as `filters`.
        strides: Of every convolution; with `per_step` 1.
        activation: Of every convolution.
        normalization: Between each convolution and its activation.
        dropout: Rate before the logits.
        per_step: Whether every step has logits of its own, as task=tagging needs.

    Returns:
        A model from float32 (batch, *shape) to logits (batch, classes), or (batch, steps, classes).

    Raises:
        ArchError: When a sample is not a series, or the arguments do not fit one another.
    """
    blocks.require_series(shape, arch="cnn1d")
    if len(filters) != len(kernel_sizes):
        raise ArchError(
            "arch.kernel_sizes must be as many as arch.filters. Received: "
            f"filters={list(filters)}, kernel_sizes={list(kernel_sizes)}"
        )
    if per_step and strides > 1:
        raise ArchError(
            "arch.per_step needs arch.strides=1, for every step to have logits. Received: "
            f"strides={strides}"
        )
    inputs = keras.Input(shape, name="input")
    x = blocks.rows_as_steps(inputs)
    for i, (count, size) in enumerate(zip(filters, kernel_sizes, strict=True), start=1):
        name = f"conv_{i}"
        x = keras.layers.Conv1D(
            count,
            size,
            strides=strides,
            padding="same",
            use_bias=normalization == "none",
            kernel_initializer="he_normal",
            name=name,
        )(x)
        x = blocks.activate(blocks.normalize(x, normalization, name=name), activation, name=name)
    if not per_step:
        x = keras.layers.GlobalAveragePooling1D(name="mean")(x)
    x = blocks.drop(x, dropout, name="dropout")
    return keras.Model(inputs, blocks.logits(x, classes), name="cnn1d")
