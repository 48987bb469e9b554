"""WAV files of every kind, as recorders write them."""

import struct
from pathlib import Path

import numpy as np


def wav(values: np.ndarray, rate: int = 16_000, *, bits: int = 16, is_float: bool = False) -> bytes:
    """Makes a file of samples in [-1, 1): (n,) or (n, channels)."""
    channels = 1 if values.ndim == 1 else values.shape[1]
    if is_float:
        data = values.astype(f"<f{bits // 8}").tobytes()
    elif bits == 8:
        data = (np.round(values * 127) + 128).astype(np.uint8).tobytes()
    else:
        whole = np.round(values * (2 ** (bits - 1) - 1)).astype("<i4")
        data = whole.reshape(-1, 1).view(np.uint8)[:, : bits // 8].tobytes()
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", 3 if is_float else 1, channels, rate, rate * frame, frame, bits)
    # Programs that write files add parts of their own before the samples and after them.
    parts = part(b"fmt ", form) + part(b"odd ", b"abc") + part(b"data", data) + part(b"end ", b"")
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WAVE" + parts


def part(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def tone(hertz: float, seconds: float = 1.0, rate: int = 16_000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def spoken_words(folder: Path, *, speakers: int = 6, clips: int = 2) -> Path:
    """Writes three words, tones with noise, said by each speaker so many times."""
    random = np.random.default_rng(0)
    for word, hertz in (("high", 3000), ("low", 300), ("middle", 1200)):
        (folder / word).mkdir(parents=True)
        for speaker in range(speakers):
            for clip in range(clips):
                said = tone(hertz * (1 + speaker / 50), 0.3) + random.normal(0, 0.02, 4800)
                (folder / word / f"s{speaker}_{clip}.wav").write_bytes(wav(said))
    return folder
