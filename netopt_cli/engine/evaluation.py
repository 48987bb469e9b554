"""Loss and accuracy of a Keras model on a split: what training looks at, never the test split."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.dataset import Dataset, Source
from netopt_cli.graph.exits import final_logits

BATCH = 500


class Evaluator:
    """Evaluates `model` on `source`, as often as it is called; compiled once."""

    def __init__(self, model: keras.Model, data: Dataset, source: Source) -> None:
        self._data = data
        self._source = source
        classes = data.classes

        @tf.function(reduce_retracing=True)
        def sums(x: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            x = data.normalization.tensor(x)
            logits = tf.cast(final_logits(model(x, training=False)), tf.float32)
            y = tf.one_hot(labels, classes)
            loss = tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(y, logits))
            hits = tf.argmax(logits, axis=-1, output_type=tf.int32) == labels
            return loss, tf.reduce_sum(tf.cast(hits, tf.float32))

        self._sums = sums

    def __call__(self) -> tuple[float, float]:
        """Returns mean loss (nats) and accuracy."""
        totals = np.zeros(2)
        for x, labels in self._source.batches(BATCH):
            totals += [float(value) for value in self._sums(x, labels)]
        loss, accuracy = totals / len(self._source)
        return float(loss), float(accuracy)
