"""Reading WAV files: any number of channels, bits and rate in; mono of one rate and length out."""

from __future__ import annotations

import io
import math
import struct
import warnings
from pathlib import Path

import numpy as np

from netopt_cli.errors import DataError

LOWEST_RATE, HIGHEST_RATE = 1_000, 192_000
"""Hz. Outside of it a header is damaged, or made to cost memory: the filter of a resampling is as
long as the larger of two rates without a common factor."""


_UNKNOWN_SIZE = 0xFFFFFFFF


def read_clip(file: Path, *, sample_rate: int, samples: int) -> np.ndarray:
    """Reads the beginning of a recording as mono; zeros follow when it is shorter.

    Channels are averaged. Another rate is converted by a polyphase filter that keeps what is below
    half of the lower rate (`scipy.signal.resample_poly`).

    Args:
        file: PCM of 8, 16, 24 or 32 bits, or float of 32 or 64 bits.
        sample_rate: Of the result, in Hz.
        samples: Of the result.

    Returns:
        (samples,) float32, full scale is [-1, 1].

    Raises:
        DataError: The file is no such WAV file, is empty or truncated; it is named.
    """
    from scipy.signal import resample_poly

    rate, channels = _read(file)
    common = math.gcd(sample_rate, rate)
    needed = -(-samples * rate // sample_rate)
    clip = _full_scale(channels[:needed]).mean(axis=1)
    if not np.isfinite(clip).all():
        raise DataError(f"A WAV file must have finite samples. Received NaN or infinity: {file}")
    if rate != sample_rate:
        clip = resample_poly(clip, sample_rate // common, rate // common)
    clip = clip[:samples].astype(np.float32)
    return np.pad(clip, (0, samples - len(clip)))


def _read(file: Path) -> tuple[int, np.ndarray]:
    """Returns the rate in Hz, and (n, channels) in the type of the file."""
    from scipy.io import wavfile

    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read the WAV file {file}: {error.strerror}") from error
    _check_chunks(file, content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of chunks without sound
            rate, values = wavfile.read(io.BytesIO(content))
    # A header that contradicts itself may end in any of these.
    except (ValueError, TypeError, ArithmeticError, struct.error, UnboundLocalError) as error:
        raise DataError(f"Cannot read the WAV file {file}: {error}") from error
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise DataError(
            f"The rate of a WAV file must be {LOWEST_RATE:,} to {HIGHEST_RATE:,} Hz. "
            f"Received: {file} with {rate:,}."
        )
    if len(values) == 0:
        raise DataError(f"The WAV file {file} is empty: it has a header and no samples.")
    return int(rate), values.reshape(len(values), -1)


def _check_chunks(file: Path, content: bytes) -> None:
    """Refuses what is no WAV file, and one that is shorter than its header says."""
    if not content:
        raise DataError(f"The WAV file {file} is empty.")
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise DataError(f"Not a WAV file: {file}")
    position = 12
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        position += 8 + size
        if position > len(content):
            raise DataError(
                f"The WAV file {file} is truncated: its part '{name.decode('ascii', 'replace')}' "
                f"should end at byte {position:,}, the file does at {len(content):,}."
            )
        position += size % 2  # parts begin at even bytes
    (whole,) = struct.unpack_from("<I", content, 4)
    # Programs that do not know the length when they begin leave 0 or the largest number there.
    if whole not in (0, _UNKNOWN_SIZE) and whole + 8 > len(content):
        raise DataError(
            f"The WAV file {file} is truncated: it should have {whole + 8:,} bytes and has "
            f"{len(content):,}."
        )


def _full_scale(values: np.ndarray) -> np.ndarray:
    """Maps the integers of a type to [-1, 1); scipy puts 24 bits into the upper ones of 32."""
    if values.dtype == np.uint8:
        return (values.astype(np.float64) - 128) / 128
    if np.issubdtype(values.dtype, np.integer):
        return values / -float(np.iinfo(values.dtype).min)
    return values.astype(np.float64)
