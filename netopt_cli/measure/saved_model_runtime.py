"""Running an exported SavedModel with TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from netopt_cli.contracts import Timing
from netopt_cli.errors import RunError
from netopt_cli.export.saved_model import ANY_BATCH, ONE_SAMPLE
from netopt_cli.measure.noise import noise


def _load(folder: Path) -> tf.Module:
    """
    Raises:
        RunError: It is no SavedModel.
    """
    try:
        return tf.saved_model.load(str(folder))
    except (OSError, tf.errors.OpError) as error:
        raise RunError(f"TensorFlow cannot load {folder}: {error}") from error


class SavedModelRunner:
    """An exported SavedModel as a function from normalized samples to logits.

    It is loaded and run by a thread of its own, for the scope of a `tf.distribute` strategy is of
    the thread that opened it: inside, variables would be loaded as distributed ones.

    Raises:
        RunError: The directory cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._model = self._thread.submit(_load, folder).result()

    def logits(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """float32 (n, *shape) -> float32 logits (n, classes), for each batch at once."""
        serve = getattr(self._model, ANY_BATCH)
        for batch in batches:
            yield self._thread.submit(lambda x: serve(tf.constant(x)).numpy(), batch).result()


def prepare(folder: Path, timing: Timing, random: np.random.Generator) -> Callable[[], object]:
    """Loads a directory for timing: returns one inference on `timing.threads` threads.

    TensorFlow's threads are of the whole process, and fixed once it has begun to compute.
    """
    tf.config.threading.set_intra_op_parallelism_threads(timing.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = _load(folder)
    serve_one = getattr(model, ONE_SAMPLE)
    signature = serve_one.input_signature[0]
    x = tf.constant(noise(random, signature.shape, signature.dtype.as_numpy_dtype))
    function = serve_one.get_concrete_function(signature)

    def infer(owner: tf.Module = model) -> object:  # who owns the variables must live on
        return function(x)

    return infer
