"""Entropy coding of long arrays with fixed frequencies, vectorized: for what the adaptive coder is
too slow for.

Interleaved range variants of asymmetric numeral systems (Duda, 2013, arXiv:1311.2540): each lane
has a state of its own, and one NumPy operation moves all lanes by a symbol.
"""

from __future__ import annotations

import zlib

import numpy as np

from netopt_cli.export.varint import read_varint, varint

_PRECISION = 14
_TOTAL = 1 << _PRECISION
_NOISE_BITS = 7.99
"""Bits a symbol from which coding is not worth its time."""
_LOWEST = np.uint64(1 << 16)
_SYMBOLS_A_LANE = 1 << 11
_MOST_LANES = 1 << 13


def encode(symbols: np.ndarray) -> bytes:
    """Codes uint8 symbols (n,), n at least 1; noise, which has no code, is stored as it is."""
    frequencies = _frequencies(symbols)
    shares = frequencies[frequencies > 0] / _TOTAL
    if -np.sum(shares * np.log2(shares)) > _NOISE_BITS:
        return symbols.tobytes()
    starts = np.cumsum(frequencies) - frequencies
    lanes = _lanes(len(symbols))
    steps = -(-len(symbols) // lanes)
    padded = np.full(steps * lanes, symbols[-1])
    padded[: len(symbols)] = symbols
    states = np.full(lanes, _LOWEST)
    words: list[np.ndarray] = []
    for row in padded.reshape(steps, lanes)[::-1]:
        frequency = frequencies[row]
        full = states >= frequency << np.uint64(32 - _PRECISION)
        words.append(states[full].astype("<u2"))
        states[full] >>= np.uint64(16)
        states = (states // frequency << np.uint64(_PRECISION)) + states % frequency + starts[row]
    table = zlib.compress(frequencies.astype("<u2").tobytes(), 9)
    stream = np.concatenate([states.astype("<u4").view("<u2"), *words[::-1]])
    block = varint(len(table)) + table + stream.tobytes()
    return block if len(block) < len(symbols) else symbols.tobytes()


def decode(block: bytes, count: int) -> np.ndarray:
    """Returns the uint8 symbols (count,).

    Raises:
        ValueError, IndexError, zlib.error: The block is damaged.
    """
    if len(block) == count:
        return np.frombuffer(block, np.uint8)
    length, at = read_varint(block, 0)
    unpacker = zlib.decompressobj()
    frequencies = np.frombuffer(unpacker.decompress(block[at : at + length], 513), "<u2")
    frequencies = frequencies.astype(np.uint64)
    if len(frequencies) != 256 or frequencies.sum() != _TOTAL:
        raise ValueError("frequencies do not add up")
    starts = np.cumsum(frequencies) - frequencies
    symbol_at = np.repeat(np.arange(256, dtype=np.uint8), frequencies.astype(np.int64))
    lanes = _lanes(count)
    steps = -(-count // lanes)
    words = np.frombuffer(block[at + length :], "<u2").astype(np.uint64)
    if len(words) < 2 * lanes:
        raise ValueError("the stream is cut off")
    states = words[: 2 * lanes : 2] | words[1 : 2 * lanes : 2] << np.uint64(16)
    position = 2 * lanes
    found = np.empty((steps, lanes), np.uint8)
    for row in found:
        slot = states & np.uint64(_TOTAL - 1)
        row[:] = symbol_at[slot]
        states = frequencies[row] * (states >> np.uint64(_PRECISION)) + slot - starts[row]
        low = np.flatnonzero(states < _LOWEST)
        states[low] = states[low] << np.uint64(16) | words[position : position + len(low)]
        position += len(low)
    return found.ravel()[:count]


def _lanes(count: int) -> int:
    return min(max(1, count // _SYMBOLS_A_LANE), _MOST_LANES)


def _frequencies(symbols: np.ndarray) -> np.ndarray:
    """Counts scaled to add up to _TOTAL, none of a symbol that occurs being 0."""
    counts = np.bincount(symbols, minlength=256)
    scaled = counts * _TOTAL // len(symbols)
    scaled[(counts > 0) & (scaled == 0)] = 1
    scaled[np.argmax(scaled)] += _TOTAL - scaled.sum()
    return scaled.astype(np.uint64)
