"""Dense autoencoder for anomaly detection, that of MLPerf Tiny by default."""

import math

import keras

from netopt_cli import blocks
from netopt_cli.errors import ArchError


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    hidden: blocks.Counts = (128, 128, 128, 128, 8, 128, 128, 128, 128),
    activation: blocks.Activation = "relu",
    normalization: blocks.Normalization = "batch",
) -> keras.Model:
    """Builds a network that is to give its input back through a bottleneck: 269,992 parameters for
    640 values, as the reference of MLPerf Tiny (Banbury et al. 2021, arXiv:2106.07597; the network
    is the baseline of DCASE 2020 task 2, Koizumi et al. 2020).

    How far its output is from the input tells how unlike the training samples a sample is. As
    there, dense layers have a bias besides their normalization.

    Args:
        shape: Shape of one sample, of any rank; it is flattened.
        classes: Number of outputs: the values of a sample.
        hidden: Units of the hidden layers, in order; the narrowest is the bottleneck.
        activation: Of the hidden layers.
        normalization: Between each hidden layer and its activation.

    Returns:
        A model from float32 (batch, *shape) to its reconstruction (batch, classes), flattened, by
        the layer `logits`.

    Raises:
        ArchError: When `classes` is not the number of values of a sample.
    """
    values = math.prod(shape)
    if classes != values:
        raise ArchError(
            f"autoencoder gives back the values of its input, here {values:,}, and does not tell "
            f"classes. Received: classes={classes}. Use arch=mlp to classify"
        )
    inputs = keras.Input(shape, name="input")
    x = inputs if len(shape) == 1 else keras.layers.Flatten(name="flatten")(inputs)
    for i, units in enumerate(hidden, start=1):
        name = f"dense_{i}"
        x = keras.layers.Dense(units, kernel_initializer="he_normal", name=name)(x)
        x = blocks.normalize(x, normalization, name=name)
        x = blocks.activate(x, activation, name=name)
    return keras.Model(inputs, blocks.logits(x, values), name="autoencoder")
