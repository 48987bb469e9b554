"""Running the segments of a network with early exits one after another, one sample at a time.

No TensorFlow is imported here: the probe times segments in a process without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from netopt_cli.contracts import Timing
from netopt_cli.measure.exit_policy import Uncertainty
from netopt_cli.measure.runtime import dequantize, open_interpreter, quantize

_SAME_SCALE = 1e-3
"""Scales that differ by less, relatively, are one: over 255 steps it is a quarter of a step."""


class SegmentChain:
    """The exported segments as one network: see `graph.exits.segments`.

    Args:
        files: Of the segments or their content, in order. One file alone is a network without
            exits, which is so timed by the same loop.
        timing: Device and threads of the runtime.

    Raises:
        RunError: A file cannot be loaded.
    """

    def __init__(self, files: Sequence[Path | bytes], timing: Timing) -> None:
        self._interpreters = [open_interpreter(file, timing) for file in files]
        self._inputs = [one.get_input_details()[0] for one in self._interpreters]
        outputs = [one.get_output_details() for one in self._interpreters]
        self._logits = [details[0] for details in outputs]
        self._handed = [details[1] for details in outputs[:-1]]
        self._is_same = [
            _same_grid(*pair) for pair in zip(self._handed, self._inputs[1:], strict=True)
        ]

    @property
    def exits(self) -> int:
        """How many, the end not counted."""
        return len(self._handed)

    def input_of(self, samples: np.ndarray) -> np.ndarray:
        """float32 (n, *shape), normalized -> what the first segment reads."""
        return quantize(samples, self._inputs[0])

    def logits(self, samples: np.ndarray) -> np.ndarray:
        """float32 (n, *shape) -> float32 logits of every exit and of the end (exits + 1, n,
        classes), sample by sample."""
        everything = np.empty(
            (len(self._interpreters), len(samples), self._logits[0]["shape"][-1]), np.float32
        )
        for number, x in enumerate(self.input_of(samples)):
            tensor = x[np.newaxis]
            for segment in range(len(self._interpreters)):
                everything[segment, number] = self._step(segment, tensor)
                if segment < len(self._handed):
                    tensor = self._hand_over(segment)
        return everything

    def leave(
        self, x: np.ndarray, uncertainty: Uncertainty, thresholds: Sequence[float]
    ) -> tuple[int, np.ndarray]:
        """Runs one sample until an exit is sure enough of it.

        Args:
            x: (1, *shape), see `input_of`.

        Returns:
            The exit, counted from 0, and its logits (classes,).
        """
        for segment, threshold in enumerate(thresholds):
            logits = self._step(segment, x)
            if uncertainty(segment, logits) <= threshold:
                return segment, logits
            x = self._hand_over(segment)
        return len(thresholds), self._step(len(thresholds), x)

    def _step(self, segment: int, x: np.ndarray) -> np.ndarray:
        """Runs one segment and returns its logits, float32 (classes,)."""
        interpreter = self._interpreters[segment]
        interpreter.set_tensor(self._inputs[segment]["index"], x)
        interpreter.invoke()
        details = self._logits[segment]
        return dequantize(interpreter.get_tensor(details["index"])[0], details)

    def _hand_over(self, segment: int) -> np.ndarray:
        """What the next segment reads; its grid may be another one than this segment's."""
        details = self._handed[segment]
        tensor = self._interpreters[segment].get_tensor(details["index"])
        if self._is_same[segment]:
            return tensor
        return quantize(dequantize(tensor, details), self._inputs[segment + 1])


def _same_grid(given: dict, wanted: dict) -> bool:
    (scale, zero_point), (other_scale, other_zero_point) = (
        given["quantization"],
        wanted["quantization"],
    )
    return (
        given["dtype"] == wanted["dtype"]
        and zero_point == other_zero_point
        and abs(scale - other_scale) <= _SAME_SCALE * scale
    )
