"""Two samples through one encoder, and how alike they come out: for verification."""

from typing import Literal

import keras

from netopt_cli import blocks
from netopt_cli.contracts import ArchBuilder
from netopt_cli.errors import ArchError

_COSINE_SCALE = 5.0
"""Logit of equal directions in the beginning: a cosine alone leaves probabilities near a half."""


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    encoder: ArchBuilder,
    embedding: blocks.Count = 64,
    compare: Literal["l1", "cosine"] = "l1",
) -> keras.Model:
    """Builds a Siamese network: the same encoder, with the same weights, for both samples.

    Args:
        shape: (2, *shape of one sample).
        classes: Number of logits: 1, that both are of one class.
        encoder: The arch, whose outputs are the embedding.
        embedding: Values of it.
        compare: `l1`, a dense layer over the absolute differences (Koch et al., "Siamese Neural
            Networks for One-shot Image Recognition", 2015); `cosine`, of the angle between the
            embeddings, with a learned scale and offset.

    Returns:
        A model from float32 (batch, 2, *shape) to one logit (batch, classes).

    Raises:
        ArchError: When samples are not pairs, or the encoder cannot be built for one of a pair.
    """
    if len(shape) < 2 or shape[0] != 2:
        raise ArchError(
            f"siamese needs pairs of samples, (2, …). Received: shape={shape}. Use it with "
            "task=verification, which makes pairs"
        )
    inputs = keras.Input(shape, name="input")
    one = encoder(shape=shape[1:], classes=embedding)
    left, right = one(inputs[:, 0]), one(inputs[:, 1])
    if compare == "l1":
        apart = keras.ops.absolute(keras.layers.Subtract(name="difference")([left, right]))
        return keras.Model(inputs, blocks.logits(apart, classes), name="siamese")
    angle = keras.layers.Dot(-1, normalize=True, name="cosine")([left, right])
    head = keras.layers.Dense(
        classes,
        kernel_initializer=keras.initializers.Constant(_COSINE_SCALE),
        dtype="float32",
        name="logits",
    )
    return keras.Model(inputs, head(angle), name="siamese")
