"""The job as a user of TFMOT does it: train, prune 80 %, quantize with training in the loop.

    python job.py DATA.npz FOLDER SEED

Runs in an environment of its own (requirements.txt), without netopt: TFMOT needs Keras 2. Batch 32,
Adam 0.001, all training samples. Writes baseline.tflite, prune.tflite and qat.tflite.
"""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras


def cnn() -> keras.Model:
    """netopt's arch `cnn` at 28x28x1: 241,546 parameters."""
    layers = keras.layers
    stack = [layers.Input((28, 28, 1))]
    for filters in (32, 64, 128):
        stack += [layers.Conv2D(filters, 3, padding="same", activation="relu")]
        stack += [layers.MaxPooling2D()]
    stack += [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(10)]
    return keras.Sequential(stack)


def train(model: keras.Model, x: np.ndarray, y: np.ndarray, epochs: int, callbacks: list) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    model.fit(x, y, batch_size=32, epochs=epochs, callbacks=callbacks, verbose=0)


def convert(model: keras.Model, file: Path, *, int8: bool) -> None:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    file.write_bytes(converter.convert())


def main(data: str, folder: str, seed: str) -> None:
    keras.utils.set_random_seed(int(seed))
    with np.load(data, allow_pickle=False) as arrays:
        x = arrays["x_train"][..., np.newaxis].astype(np.float32) / 255
        y = arrays["y_train"].astype(np.int64)
    model = cnn()
    train(model, x, y, 8, [])
    convert(model, Path(folder, "baseline.tflite"), int8=False)

    steps = 5 * -(-len(x) // 32)
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, 0, int(0.6 * steps))
    pruned = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
    train(pruned, x, y, 5, [tfmot.sparsity.keras.UpdatePruningStep()])
    pruned = tfmot.sparsity.keras.strip_pruning(pruned)
    convert(pruned, Path(folder, "prune.tflite"), int8=False)

    annotated = tfmot.quantization.keras.quantize_annotate_model(pruned)
    scheme = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
    quantized = tfmot.quantization.keras.quantize_apply(annotated, scheme)
    train(quantized, x, y, 2, [])
    convert(quantized, Path(folder, "qat.tflite"), int8=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
