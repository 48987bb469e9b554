"""Transformer encoder (Vaswani et al., 2017), BERT-style, over texts or sequences of values."""

import keras

from netopt_cli import blocks, token_blocks
from netopt_cli.errors import ArchError
from netopt_cli.graph.positions import Positions
from netopt_cli.inputs import VALUES, Inputs


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    inputs: Inputs = VALUES,
    width: blocks.Count = 64,
    depth: blocks.Count = 2,
    heads: blocks.Count = 4,
    feed_forward: blocks.Count = 128,
    shared: bool = False,
    token_dropout: blocks.Rate = 0.0,
    dropout: blocks.Rate = 0.1,
    per_step: bool = False,
) -> keras.Model:
    """Builds an embedding with learned positions, blocks of self-attention and two dense layers,
    normalized before each (Xiong et al., 2020), and the logits of the mean over the sequence, or of
    each step.

    Attention sees padding as tokens of a kind, which it learns to leave alone: a mask of large
    negative numbers would leave int8 no resolution for the rest.

    Args:
        shape: (length,) of tokens; (steps, features) of values; (height, width, channels) of
            images, of which each row is a step.
        classes: Number of logits.
        inputs: What a sample is.
        width: Of the embedding and of every block, a multiple of `heads`.
        depth: Number of blocks.
        heads: Of each attention.
        feed_forward: Units of the first dense layer of each block.
        shared: Whether all blocks are one, with the same weights (Lan et al., "ALBERT", 2020).
        token_dropout: Rate at which whole steps are left out in training.
        dropout: Rate of each attention and each dense layer, and before the logits.
        per_step: Whether every step has logits of its own, as task=tagging needs.

    Returns:
        A model from tokens, int32 (batch, length), or float32 (batch, *shape), to logits (batch,
        classes), or (batch, steps, classes).

    Raises:
        ArchError: When a sample is not a sequence, or `width` cannot be shared out.
    """
    if width % heads:
        raise ArchError(
            f"arch.width must be a multiple of arch.heads. Received: width={width}, heads={heads}"
        )
    source, x, weights = _sequence(shape, inputs, width)
    if token_dropout:
        kept = weights if weights is not None else keras.ops.ones_like(x[..., :1])
        kept = blocks.drop(kept, token_dropout, name="token_dropout")
        x = keras.layers.Multiply(name="steps_left")([x, kept])
    x = Positions(name="positions")(x)
    x = blocks.drop(x, dropout, name="embedding_dropout")
    block = None
    for number in range(1, depth + 1):
        if block is None or not shared:
            name = "block" if shared else f"block_{number}"
            block = _Block(width, heads, feed_forward, dropout, name)
        x = block(x)
    x = keras.layers.LayerNormalization(epsilon=1e-6, name="last_norm")(x)
    if weights is None and not per_step:
        x = keras.layers.GlobalAveragePooling1D(name="mean")(x)
    elif not per_step:
        x = token_blocks.mean_of_present(x, weights)
    x = blocks.drop(x, dropout, name="dropout")
    return keras.Model(source, blocks.logits(x, classes), name="transformer")


def _sequence(
    shape: tuple[int, ...], inputs: Inputs, width: int
) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor | None]:
    """The input, the sequence (batch, steps, width), and where it is present, if that varies."""
    if not inputs.are_values:
        field = token_blocks.text_field(inputs, "transformer")
        tokens = keras.Input(shape, dtype="int32", name="input")
        return (
            tokens,
            token_blocks.embedded(tokens, field.vocabulary, width),
            token_blocks.present(tokens),
        )
    blocks.require_series(shape, arch="transformer", also="texts, ")
    source = keras.Input(shape, name="input")
    x = blocks.rows_as_steps(source)
    return source, keras.layers.Dense(width, name="embedding")(x), None


class _Block:
    """The layers of one block, which may be called several times."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float, name: str):
        layers = keras.layers
        self._norm_1 = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm_1")
        self._attention = layers.MultiHeadAttention(
            heads, width // heads, dropout=dropout, name=f"{name}_attention"
        )
        self._add_1 = layers.Add(name=f"{name}_add_1")
        self._norm_2 = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm_2")
        self._dense_1 = layers.Dense(feed_forward, activation="relu", name=f"{name}_dense_1")
        self._dense_2 = layers.Dense(width, name=f"{name}_dense_2")
        self._dropout = layers.Dropout(dropout, name=f"{name}_dropout") if dropout else None
        self._add_2 = layers.Add(name=f"{name}_add_2")

    def __call__(self, x: keras.KerasTensor) -> keras.KerasTensor:
        normed = self._norm_1(x)
        x = self._add_1([x, self._attention(normed, normed)])
        y = self._dense_2(self._dense_1(self._norm_2(x)))
        if self._dropout is not None:
            y = self._dropout(y)
        return self._add_2([x, y])
