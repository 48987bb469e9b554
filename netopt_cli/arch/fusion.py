"""Several inputs fused: an encoder for each field of a sample, then dense layers over all."""

import keras

from netopt_cli import blocks, token_blocks
from netopt_cli.errors import ArchError
from netopt_cli.inputs import VALUES, Field, Inputs


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    inputs: Inputs = VALUES,
    filters: blocks.Counts = (16, 32),
    width: blocks.Count = 32,
    hidden: blocks.Counts = (64,),
    activation: blocks.Activation = "relu",
    normalization: blocks.Normalization = "none",
    dropout: blocks.Rate = 0.0,
) -> keras.Model:
    """Builds late fusion (Ngiam et al., "Multimodal Deep Learning", 2011): what each field is
    encoded to lies side by side before the first layer that sees all.

    An image goes through convolutions, each with pooling while its sides are large enough, other
    values through a normalization, both then through a dense layer; of a text the mean of the
    embeddings of its tokens is taken; ids have an embedding each.

    Args:
        shape: (values of all fields,).
        classes: Number of outputs.
        inputs: The fields.
        filters: Of the convolutions over images.
        width: What each field is encoded to.
        hidden: Units of the dense layers over all fields.
        activation: Of the hidden layers.
        normalization: Between each layer and its activation.
        dropout: Rate after each of the dense layers over all.

    Returns:
        A model from int32 (batch, *shape) to logits (batch, classes).

    Raises:
        ArchError: When a sample is one kind of values alone.
    """
    if len(inputs.fields) < 2:
        raise ArchError(
            f"fusion needs samples of several fields. Received: {inputs.describe()}. Use "
            "data=npz_fields, or another arch"
        )
    source = keras.Input(shape, dtype="int32", name="input")

    def unit(x: keras.KerasTensor, units: int, name: str, rate: float = 0.0) -> keras.KerasTensor:
        return blocks.dense_unit(
            x, units, name=name, normalization=normalization, activation=activation, dropout=rate
        )

    def convolved(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        for i, count in enumerate(filters, start=1):
            x = blocks.conv_unit(
                x, count, 3, name=f"{name}_conv_{i}", normalization=normalization,
                activation=activation,
            )  # fmt: skip
            if min(x.shape[1:3]) >= 4:
                x = blocks.max_pool(x, name=f"{name}_pool_{i}")
        return x

    def encoded(field: Field, x: keras.KerasTensor) -> keras.KerasTensor:
        name = field.name
        if field.kind == "tokens":
            embedded = token_blocks.embedded(x, field.vocabulary, width, f"{name}_embedding")
            return token_blocks.mean_of_present(embedded, token_blocks.present(x))
        if field.kind == "ids":
            embedded = token_blocks.embedded(x, field.vocabulary, width, f"{name}_embedding")
            return keras.layers.Flatten(name=f"{name}_flatten")(embedded)
        if len(field.shape) == 3:
            x = convolved(x, name)
        else:
            x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_scale")(x)
        if len(field.shape) > 1:
            x = keras.layers.Flatten(name=f"{name}_flatten")(x)
        return unit(x, width, f"{name}_dense")

    parts = inputs.parts(source)
    x = keras.layers.Concatenate(name="fused")(
        [encoded(field, parts[field.name]) for field in inputs.fields]
    )
    for i, units in enumerate(hidden, start=1):
        x = unit(x, units, f"dense_{i}", dropout)
    return keras.Model(source, blocks.logits(x, classes), name="fusion")
