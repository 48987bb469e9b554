"""Does the exported file compute what the network computes?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from netopt_cli.contracts import Scheme
from netopt_cli.errors import ParityError
from netopt_cli.graph.schemes import ARITHMETIC, Arithmetic

PARITY_SAMPLES = 256
FLOAT32_TOLERANCE = 1e-3
SPREAD_TOLERANCE: Mapping[Arithmetic, float] = {"float": 0.05, "dynamic": 0.4, "integer": 0.4}
INT8_RESOLUTION = 0.03
LEAST_CORRELATION = 0.6


@dataclass(frozen=True)
class Parity:
    """How far two sets of logits are from each other.

    Attributes:
        max_abs: The largest absolute difference.
        tolerance: How large it may be.
        correlation: Of the logits, each less its mean over the samples; 0 when one set is constant.
    """

    max_abs: float
    tolerance: float
    correlation: float
    samples: int

    @property
    def is_rough(self) -> bool:
        """Whether the file follows the network from farther off than rounding explains."""
        return self.max_abs > self.tolerance


def tolerance(scheme: Scheme, expected: np.ndarray) -> float:
    """The largest difference to `expected`, logits (n, classes), that is not a broken export.

    float32: 1e-3 × max(1, largest |logit|): the same sums in another order.

    Other schemes are compared with the network whose kernels are rounded as in the file, so that
    what remains is due to the activations. The tolerance is a part of the spread, the range of the
    logit that varies most over the samples. An output that does not depend on the input is off by
    at least 0.5 spread, whatever its value. For a network whose output hardly varies, where the
    spread says nothing, it is never less than that of float32, and for quantized activations 3 % of
    the largest |logit| (eight steps of int8).

    Float activations (float16, weight_int8, weight_int4): 0.05 spread. Measured on a CNN, an MLP,
    ResNet-8, a MobileNet, attention, LSTM, 1-D convolutions and an embedding, trained or not: at
    most 0.0001, and 0.015 for float16, which rounds kernels after BatchNorm was folded in.

    Activations rounded in each inference (dynamic, dynamic_int4): 0.4 spread, as for integer ones;
    the same networks: at most 0.05, and 0.15 for a MobileNet after two epochs on 1,437 digits.

    Integer activations (int8, int8x4, int16x8): 0.4 spread. What they do to a working network is
    mostly the saturation of a few logits beyond the calibrated range. Measured for int8 on MNIST
    with an MLP, LeNet-5, the CNN, ResNet-8 and a MobileNet (ReLU, ReLU6, swish), untrained and
    after 1 and 4 epochs: at most 0.20 spread with 100 calibration samples and 0.40 with 10
    (trained: 0.17 and 0.24). Broken files of the trained networks: zeros ≥ 0.52, classes shifted by
    one ≥ 0.87, inverted pixels ≥ 0.56, flipped images ≥ 0.53, pixels not scaled ≥ 0.89.
    """
    largest = float(np.abs(expected).max())
    least = FLOAT32_TOLERANCE * max(1.0, largest)
    if scheme == "float32":
        return least
    arithmetic = ARITHMETIC[scheme]
    if arithmetic != "float":
        least = max(INT8_RESOLUTION * largest, FLOAT32_TOLERANCE)
    return max(SPREAD_TOLERANCE[arithmetic] * float(np.ptp(expected, axis=0).max()), least)


def check_parity(scheme: Scheme, expected: np.ndarray, actual: np.ndarray) -> Parity:
    """Compares the logits (n, classes) of the network and of its file.

    Beyond the tolerance, a file with rounded activations passes as rough while its logits correlate
    with the network's: some networks quantize badly, and their accuracy says how badly. Measured on
    deep networks of keras.applications after one epoch on 64 digits: 0.68 (DenseNet121) and 0.73
    (MobileNetV3Small). A broken file of a trained CNN: inverted pixels 0.45, flipped images 0.35,
    classes shifted by one −0.26, a constant 0.

    Raises:
        ParityError: They differ by more than `tolerance`, or one is not finite.
    """
    if actual.shape != expected.shape:
        raise ParityError(
            f"The exported file gives {actual.shape[1:]} outputs, the network {expected.shape[1:]}"
        )
    parity = Parity(
        max_abs=float(np.abs(expected - actual).max()),
        tolerance=tolerance(scheme, expected),
        correlation=_correlation(expected, actual),
        samples=len(expected),
    )
    rounds = scheme != "float32" and ARITHMETIC[scheme] != "float"
    follows = rounds and parity.correlation >= LEAST_CORRELATION
    if not (parity.max_abs <= parity.tolerance or follows):  # also when it is NaN
        raise ParityError(
            f"The exported {scheme} file does not compute what the network computes: over "
            f"{parity.samples} validation samples the logits differ by up to "
            f"{parity.max_abs:.4g}, the tolerance is {parity.tolerance:.4g}"
        )
    return parity


def _correlation(expected: np.ndarray, actual: np.ndarray) -> float:
    one, other = (logits - logits.mean(axis=0) for logits in (expected, actual))
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / scale if scale else 0.0
