"""From a Keras model to a TensorFlow SavedModel, a directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    import keras

ANY_BATCH = "serve"
ONE_SAMPLE = "serve_one"


def save(model: keras.Model, folder: Path) -> None:
    """Writes `model` at inference, float32, into `folder`.

    It has two endpoints that share the weights: `serve`, the default signature, float32
    (n, *shape) -> logits (n, classes), and `serve_one`, the same with n = 1, every shape of which
    is known. `model.export` is not used: Keras 3.15 stores every weight twice.
    """

    def forward(x: tf.Tensor) -> tf.Tensor:
        return model(x, training=False)

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    for name, batch in ((ANY_BATCH, None), (ONE_SAMPLE, 1)):
        x = tf.TensorSpec((batch, *model.input_shape[1:]), model.inputs[0].dtype, name="x")
        setattr(module, name, tf.function(forward, input_signature=[x], autograph=False))
    signatures = {"serving_default": module.serve, ONE_SAMPLE: module.serve_one}
    tf.saved_model.save(module, str(folder), signatures=signatures)
