"""Loss and score of a Keras model on a split: what training looks at, never the test split."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from netopt_cli.dataset import Dataset, Source, fitting_batch
from netopt_cli.graph.exits import final_logits

BATCH = 500


class Evaluator:
    """Evaluates `model` on `source`, as often as it is called; compiled once."""

    def __init__(self, model: keras.Model, data: Dataset, source: Source) -> None:
        self._task = data.task
        self._source = source
        task, outputs_count = data.task, data.classes

        @tf.function(reduce_retracing=True)
        def evaluated(x: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            x = data.normalization.tensor(x)
            outputs = tf.cast(final_logits(model(x, training=False)), tf.float32)
            return task.losses(task.targets(x, labels, outputs_count), outputs), outputs

        self._evaluated = evaluated

    def __call__(self) -> tuple[float, float]:
        """Returns the mean loss and the figure of the task that counts, in its own direction."""
        found = []
        for x, labels in self._source.batches(fitting_batch(self._source.shape, BATCH)):
            losses, outputs = self._evaluated(x, labels)
            found.append((labels, losses.numpy(), self._task.answers(outputs.numpy())))
        labels, losses, answers = (np.concatenate(part) for part in zip(*found, strict=True))
        scores = self._task.scores(labels, answers, losses)
        return float(losses.mean(dtype=np.float64)), float(scores[self._task.metric])
