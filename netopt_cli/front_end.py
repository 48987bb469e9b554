"""What a speech network gets to see of a recording: its log-mel spectrum, its MFCC, or itself.

Frame t of a recording x, windowed by w (periodic Hann) and padded with zeros to a power of two N:

    X[t, k]  = sum over n of w[n] x[t hop + n] exp(-2 pi i k n / N)
    E[t, m]  = sum over k of H[k, m] |X[t, k]|²          H: triangles, equally wide in mel, height 1
    L[t, m]  = log(E[t, m] + 1e-6)                       `log_mel`
    C[t, c]  = DCT-II (orthonormal) of L[t, :] at c      `mfcc`, after Davis and Mermelstein (1980)

with mel(f) = 2595 log10(1 + f / 700). 1e-6 is about the energy of a rounding to 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from netopt_cli.errors import DataError

if TYPE_CHECKING:
    from scipy import sparse

Features = Literal["log_mel", "mfcc", "waveform"]

_FLOOR = 1e-6


@dataclass(frozen=True)
class FrontEnd:
    """From recordings to the samples of a network.

    Attributes:
        sample_rate: Of the recordings, in Hz.
        seconds: Their length.
        features: What comes out.
        frame_ms: Length of a frame.
        hop_ms: From the beginning of a frame to that of the next.
        mel_bins: Bands of the mel spectrum.
        coefficients: Of the MFCC, from the 0th on.
        low_hz, high_hz: Range of the bands; None is half the sample rate.

    Raises:
        DataError: The parameters contradict one another.
    """

    sample_rate: int
    seconds: float
    features: Features
    frame_ms: float
    hop_ms: float
    mel_bins: int
    coefficients: int
    low_hz: float
    high_hz: float | None

    def __post_init__(self) -> None:
        if self.features == "waveform":
            return
        if self._hop < 1:
            raise DataError(f"hop_ms must be at least a sample. Received: hop_ms={self.hop_ms}")
        if not 2 <= self._frame <= self.samples:
            raise DataError(
                "frame_ms must be at least two samples and at most the length of the clips. "
                f"Received: frame_ms={self.frame_ms}, seconds={self.seconds}"
            )
        if not self.low_hz < self._high_hz <= self.sample_rate / 2:
            raise DataError(
                f"low_hz and high_hz must be in this order and at most half of sample_rate, "
                f"{self.sample_rate / 2:g}. Received: low_hz={self.low_hz}, high_hz={self._high_hz}"
            )
        if self.features == "mfcc" and self.coefficients > self.mel_bins:
            raise DataError(
                "coefficients must be at most mel_bins. Received: "
                f"coefficients={self.coefficients}, mel_bins={self.mel_bins}"
            )
        if not self._mel_weights.any(axis=0).all():
            raise DataError(
                "mel_bins must be few enough for each to hold a frequency of the transform. "
                f"Received: mel_bins={self.mel_bins}, of {self._fft_length // 2 + 1} frequencies "
                f"with frame_ms={self.frame_ms}. Use fewer, or longer frames"
            )

    @property
    def samples(self) -> int:
        """Of a recording."""
        return round(self.sample_rate * self.seconds)

    def __call__(self, clip: np.ndarray) -> np.ndarray:
        """Computes the features of a recording.

        Args:
            clip: (samples,) float32, full scale is [-1, 1].

        Returns:
            float32: (frames, mel_bins or coefficients, 1), with
            frames = 1 + (samples - frame) // hop; or `clip` itself.
        """
        from scipy.fft import dct, rfft

        if self.features == "waveform":
            return clip
        frames = np.lib.stride_tricks.sliding_window_view(clip, self._frame)[:: self._hop]
        spectrum = rfft(frames * self._window, self._fft_length)  # (frames, frequencies)
        energy = (spectrum.real**2 + spectrum.imag**2) @ self._sparse_mel_weights
        x = np.log(energy + _FLOOR)  # (frames, mel_bins)
        if self.features == "mfcc":
            x = dct(x, type=2, norm="ortho")[:, : self.coefficients]
        return x[..., np.newaxis].astype(np.float32)

    @property
    def _frame(self) -> int:
        return round(self.sample_rate * self.frame_ms / 1000)

    @property
    def _hop(self) -> int:
        return round(self.sample_rate * self.hop_ms / 1000)

    @property
    def _fft_length(self) -> int:
        return 1 << (self._frame - 1).bit_length()

    @property
    def _high_hz(self) -> float:
        return self.sample_rate / 2 if self.high_hz is None else self.high_hz

    @cached_property
    def _window(self) -> np.ndarray:
        return np.hanning(self._frame + 1)[:-1].astype(np.float32)

    @cached_property
    def _mel_weights(self) -> np.ndarray:
        """(frequencies, mel_bins): triangles between neighbours but one, peaks in the middle."""
        edges = np.linspace(_mel(self.low_hz), _mel(self._high_hz), self.mel_bins + 2)
        low, peak, high = edges[:-2], edges[1:-1], edges[2:]
        frequencies = np.arange(self._fft_length // 2 + 1) * self.sample_rate / self._fft_length
        mel = _mel(frequencies)[:, np.newaxis]
        rising, falling = (mel - low) / (peak - low), (high - mel) / (high - peak)
        return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)

    @cached_property
    def _sparse_mel_weights(self) -> sparse.csr_array:
        """A frequency is in two triangles at most. A product with all the zeros would be given to
        the threads of BLAS, who take longer to wake up than it does."""
        from scipy import sparse

        return sparse.csr_array(self._mel_weights)


def _mel(hertz: np.ndarray | float) -> np.ndarray:
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)
