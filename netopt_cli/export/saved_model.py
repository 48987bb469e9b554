"""From a Keras model to a TensorFlow SavedModel, a directory."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf

ANY_BATCH = "serve"
ONE_SAMPLE = "serve_one"


def save(model: keras.Model, folder: Path) -> None:
    """Writes `model` at inference, float32, into `folder`.

    It has two endpoints that share the weights: `serve`, the default signature, float32
    (n, *shape) -> logits (n, classes), and `serve_one`, the same with n = 1, every shape of which
    is known.
    """
    shape = model.input_shape[1:]
    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, batch in ((ANY_BATCH, None), (ONE_SAMPLE, 1)):
        signature = [tf.TensorSpec((batch, *shape), tf.float32, name="x")]
        archive.add_endpoint(name, lambda x: model(x, training=False), input_signature=signature)
    archive.write_out(str(folder), verbose=False)
