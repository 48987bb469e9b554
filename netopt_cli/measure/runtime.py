"""Running an exported file with LiteRT, one sample at a time.

No TensorFlow is imported here: the probe times files in a process without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from netopt_cli.contracts import Timing
from netopt_cli.errors import RunError
from netopt_cli.measure.noise import noise

_RESOLVERS = {
    "cpu": OpResolverType.AUTO,
    "cpu_reference": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
}


def open_interpreter(model: Path | bytes, timing: Timing) -> Interpreter:
    """Loads a file and allocates its tensors.

    Args:
        model: The file, which is mapped into memory, or its content.

    Raises:
        RunError: It is no LiteRT file, or has an operation that this runtime does not know.
    """
    path, content = (None, model) if isinstance(model, bytes) else (str(model), None)
    try:
        interpreter = Interpreter(
            model_path=path,
            model_content=content,
            num_threads=timing.threads,
            experimental_op_resolver_type=_RESOLVERS[timing.device],
        )
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise RunError(f"LiteRT cannot load {path or 'the exported model'}: {error}") from error
    return interpreter


class LitertRunner:
    """An exported file as a function from normalized samples to logits, always at batch 1.

    Args:
        model: The file or its content: one input (1, *shape), one output (1, classes), float32 or
            quantized.
        timing: Device and threads of the runtime.
        workers: Interpreters that share the samples of `logits`, each in its own thread (`invoke`
            releases the GIL). Several single-threaded interpreters finish a set sooner than one
            with several threads, so more than one of them use one thread each.

    Raises:
        RunError: The file cannot be loaded.
    """

    def __init__(self, model: Path | bytes, timing: Timing, workers: int = 1) -> None:
        if workers > 1:
            timing = Timing(device=timing.device, threads=1)
        self._interpreters = [open_interpreter(model, timing) for _ in range(workers)]
        (self._input,) = self._interpreters[0].get_input_details()
        (self._output,) = self._interpreters[0].get_output_details()

    def predict(self, x: np.ndarray) -> np.ndarray:
        """float32 (1, *shape) -> float32 logits (1, classes)."""
        return self._run(self._interpreters[0], x)

    def logits(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """float32 (n, *shape) -> float32 logits (n, classes), for each batch."""
        workers = len(self._interpreters)
        with ThreadPoolExecutor(workers) as pool:
            for batch in batches:
                shares = np.array_split(batch, workers)
                yield np.concatenate(list(pool.map(self._run, self._interpreters, shares)))

    def _run(self, interpreter: Interpreter, samples: np.ndarray) -> np.ndarray:
        """(n, *shape) -> (n, classes), sample by sample."""
        samples = quantize(samples, self._input)
        outputs = np.empty((len(samples), *self._output["shape"][1:]), self._output["dtype"])
        for row, sample in enumerate(samples):
            interpreter.set_tensor(self._input["index"], sample[np.newaxis])
            interpreter.invoke()
            outputs[row] = interpreter.get_tensor(self._output["index"])[0]
        return dequantize(outputs, self._output)


def prepare(file: Path, timing: Timing, random: np.random.Generator) -> Callable[[], object]:
    """Loads a file for timing: returns one inference, without copying the input and the output."""
    interpreter = open_interpreter(file, timing)
    (tensor,) = interpreter.get_input_details()
    x = noise(random, tensor["shape"], tensor["dtype"])
    interpreter.set_tensor(tensor["index"], quantize(x, tensor))
    return interpreter.invoke


def prepare_samples(file: Path, timing: Timing, samples: np.ndarray) -> Callable[[], object]:
    """Loads a file for timing on samples, float32 (n, *shape): each inference takes the next one,
    copying it included."""
    interpreter = open_interpreter(file, timing)
    (tensor,) = interpreter.get_input_details()
    turns = cycle(quantize(samples, tensor)[:, np.newaxis])

    def infer() -> None:
        interpreter.set_tensor(tensor["index"], next(turns))
        interpreter.invoke()

    return infer


def quantize(x: np.ndarray, tensor: dict) -> np.ndarray:
    """float32 values -> what a tensor of a file holds; `tensor` is its entry in the details."""
    scale, zero_point = tensor["quantization"]
    if scale == 0.0:  # LiteRT's way to say: not quantized
        return x.astype(tensor["dtype"], copy=False)
    limits = np.iinfo(tensor["dtype"])
    return np.clip(np.rint(x / scale) + zero_point, limits.min, limits.max).astype(tensor["dtype"])


def dequantize(q: np.ndarray, tensor: dict) -> np.ndarray:
    """What a tensor of a file holds -> float32 values."""
    scale, zero_point = tensor["quantization"]
    if scale == 0.0:
        return q.astype(np.float32, copy=False)
    return (q.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
