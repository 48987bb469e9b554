"""Running an exported ONNX file with ONNX Runtime on the CPU, one sample at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort

from netopt_cli.contracts import Timing
from netopt_cli.errors import RunError
from netopt_cli.measure.noise import noise

_DTYPES = {"tensor(float)": np.float32, "tensor(int32)": np.int32}


def open_session(file: Path, threads: int) -> ort.InferenceSession:
    """Loads a file.

    Args:
        threads: That one inference runs on.

    Raises:
        RunError: It is no ONNX file, or has an operation that this runtime does not know.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common class but this
        raise RunError(f"ONNX Runtime cannot load {file}: {error}") from error


class OnnxRunner:
    """An exported file as a function from normalized samples to logits, always at batch 1.

    Args:
        workers: Threads that share the samples, each with one inference at a time.

    Raises:
        RunError: The file cannot be loaded.
    """

    def __init__(self, file: Path, workers: int = 1) -> None:
        self._session = open_session(file, threads=1)
        self._workers = workers
        self._input = self._session.get_inputs()[0].name

    def logits(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """float32 (n, *shape) -> float32 logits (n, classes), for each batch."""
        with ThreadPoolExecutor(self._workers) as pool:
            for batch in batches:
                yield np.concatenate(list(pool.map(self._run, batch[:, np.newaxis])))

    def _run(self, sample: np.ndarray) -> np.ndarray:
        """(1, *shape) -> (1, classes)."""
        return self._session.run(None, {self._input: sample})[0]


def prepare(file: Path, timing: Timing, random: np.random.Generator) -> Callable[[], object]:
    """Loads a file for timing: returns one inference, without copying the input and the output."""
    session = open_session(file, timing.threads)
    source, target = session.get_inputs()[0], session.get_outputs()[0]
    x = ort.OrtValue.ortvalue_from_numpy(noise(random, source.shape, _DTYPES[source.type]))
    y = ort.OrtValue.ortvalue_from_numpy(np.empty(target.shape, np.float32))
    binding = session.io_binding()
    binding.bind_ortvalue_input(source.name, x)
    binding.bind_ortvalue_output(target.name, y)
    return lambda: session.run_with_iobinding(binding)
