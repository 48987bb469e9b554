"""Multi-layer perceptron, LeNet-300-100 by default (LeCun et al. 1998)."""

import keras

from netopt_cli import blocks


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    hidden: blocks.Counts = (300, 100),
    activation: blocks.Activation = "relu",
    normalization: blocks.Normalization = "none",
    dropout: blocks.Rate = 0.0,
) -> keras.Model:
    """Builds a fully connected network: 266,610 parameters at 28x28x1 and 10 classes.

    Args:
        shape: Shape of one sample, of any rank; it is flattened.
        classes: Number of logits.
        hidden: Units of the hidden layers, in order; empty is logistic regression.
        activation: Of the hidden layers.
        normalization: Between each hidden layer and its activation.
        dropout: Rate after each hidden layer.

    Returns:
        A model from float32 (batch, *shape) to logits (batch, classes).
    """
    inputs = keras.Input(shape, name="input")
    x = inputs if len(shape) == 1 else keras.layers.Flatten(name="flatten")(inputs)
    for i, units in enumerate(hidden, start=1):
        x = blocks.dense_unit(
            x,
            units,
            name=f"dense_{i}",
            normalization=normalization,
            activation=activation,
            dropout=dropout,
        )
    return keras.Model(inputs, blocks.logits(x, classes), name="mlp")
