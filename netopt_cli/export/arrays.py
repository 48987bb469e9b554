"""Coding of the constant arrays of a network: where the zeros are, and what the others are.

After DeepCABAC (Wiedemann et al., 2020, arXiv:1907.11900): a map of the weights that are not zero,
then the values of those, each by adaptive arithmetic coding. The map is coded a row (an output
channel) at a time: how many of its weights are not zero, then each place with the probability that
the rows before and the number still to come give it. What is too long for that gets fixed
frequencies, or is left to LZMA, which finds rows that are alike.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from netopt_cli.export.entropy import ONE, Coder, Mixer
from netopt_cli.export.static_code import decode, encode

_LONGEST_MAP = 2_000_000
"""Elements of an array whose zeros are coded one by one."""
_MOST_DECISIONS = 200_000
"""Binary decisions that the values of one array may take."""
_ALL_DECISIONS = 300_000
"""What those of all arrays may take, first come, first served."""
_MOST_PLAIN = 50_000
"""What numbers without anything in common may take."""
_SAMPLED_ROWS = 256
"""Rows by which a map's prior is chosen."""
_FIRST_WORDS = 1 << 12
"""Elements that mostly tell already that there are too many values for a palette."""
_LONGEST_REPETITIVE = 4_000_000
"""Elements in which LZMA looks for what is alike: above, it takes seconds."""
_REPETITIONS = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
_BY_FREQUENCY, _BY_REPETITION = b"\0", b"\1"
"""What a block begins with: how it is coded."""
_PALETTE = 256
"""Most values that are coded by their number."""
_PRIORS = (0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""How alike the columns are, as the shape of a gamma distribution of their densities."""


@dataclass
class Array:
    """A constant.

    Attributes:
        shape: Rows (output channels) and columns.
        bits: Of an element: 4, 8, 16 or 32.
        words: The elements as unsigned numbers (rows * columns,); None before they are decoded.
    """

    shape: tuple[int, int]
    bits: int
    words: np.ndarray | None = None

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]


class ArrayCoder:
    """Codes arrays one after the other, in the order of decoding."""

    def __init__(self, coder: Coder, blocks: list[bytes]) -> None:
        """
        Args:
            blocks: The streams of fixed frequencies: appended to, or taken from the front.
        """
        self._coder = coder
        self._blocks = blocks
        self._array = 0
        self._decisions_left = _ALL_DECISIONS
        self._numbers = Mixer(coder, 2, learning_rate=0.01)
        self._bytes = Mixer(coder, 2, learning_rate=0.01)

    def code(self, arrays: list[Array]) -> None:
        """Codes all arrays; a decoder fills in their words."""
        palettes = {
            bits: self._palette([a for a in arrays if a.bits == bits], bits) for bits in (16, 32)
        }
        for self._array, array in enumerate(arrays):
            self._code(array, palettes.get(array.bits))

    def _palette(self, arrays: list[Array], bits: int) -> np.ndarray:
        """Codes the values that arrays of few values have in common, in rising order."""
        values = np.empty(0, np.uint32)
        if self._coder.encodes:
            for array in sorted(arrays, key=lambda a: -a.size):
                assert array.words is not None
                if len(np.unique(array.words[:_FIRST_WORDS])) > _PALETTE + 1:
                    continue
                nonzero = array.words[array.words != 0].astype(np.uint32)
                joined = np.union1d(values, nonzero)
                new = len(joined) - len(values)
                if len(joined) <= _PALETTE and 2 * new <= len(nonzero):
                    values = joined
            values = values[np.argsort(_by_value(values, bits))]
        count = self._number(len(values), "palette")
        return self._plain(values, count, bits)

    def _code(self, array: Array, palette: np.ndarray | None) -> None:
        encodes = self._coder.encodes
        words = array.words if array.words is not None else np.zeros(array.size, np.uint32)
        words = words.astype(np.uint32)
        has_map = encodes and not words.all() and not self._repeats(words, array)
        is_sparse = bool(self._number(int(has_map), "has zeros"))
        places = self._places(words, array.shape) if is_sparse else np.arange(array.size)
        values = words[places] if encodes else np.empty(0, np.uint32)
        in_palette = palette is not None and bool(
            self._number(int(encodes and _all_in(values, palette)), "in palette")
        )
        if palette is not None and in_palette:
            order = np.argsort(palette)
            indices = order[np.searchsorted(palette, values, sorter=order)] if encodes else values
            bits = max(0, len(palette) - 1).bit_length()
            indices = self._symbols(indices, places, array.shape, bits)
            if len(indices) and int(indices.max()) >= len(palette):
                raise ValueError("an index outside of the palette")
            values = palette[indices]
        elif array.bits <= 8:
            # The sign is turned, so that the tree of symbols goes from the lowest to the highest.
            sign = 1 << array.bits - 1
            values = self._symbols(values ^ sign, places, array.shape, array.bits) ^ sign
        else:
            values = self._plain(values, len(places), array.bits)
        words[places] = values
        array.words = words.astype(f"u{max(1, array.bits // 8)}")

    def _repeats(self, words: np.ndarray, array: Array) -> bool:
        """Whether LZMA of the whole, zeros included, is shorter than a map and the values."""
        if not (array.bits == 8 and _MOST_DECISIONS // 8 < array.size <= _LONGEST_REPETITIVE):
            return False
        return len(_repetitions(words.astype(np.uint8))) < _sparse_bytes(words.reshape(array.shape))

    def _places(self, words: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Codes which elements are not zero; returns their indices in rising order."""
        present = words != 0
        if len(words) > _LONGEST_MAP:
            packed = self._block(np.packbits(present), -(-len(words) // 8))
            return np.flatnonzero(np.unpackbits(packed, count=len(words)))
        rows, columns = shape
        table = present.reshape(rows, columns)
        prior = 0
        if self._coder.encodes:
            sample = table[:: -(-rows // _SAMPLED_ROWS)]
            lengths = [_map_length(sample, each) for each in _PRIORS]
            prior = int(np.argmin(lengths))
        prior = self._number(prior, "prior")
        density = _Density(columns, _PRIORS[prior])
        code = self._coder.code
        found: list[int] = []
        for index in range(rows):
            bits = table[index].tolist()
            left = self._number(sum(bits), "row")
            if not 0 <= left <= columns:
                raise ValueError("more weights than places")
            row: list[int] = []
            hazards = density.hazards() if left else []
            for column in range(columns):
                if not left:
                    break
                if left == columns - column:
                    row.extend(range(column, columns))
                    break
                probability = int(left * hazards[column])
                probability = 1 if probability < 1 else min(probability, ONE - 1)
                if code(bits[column], probability):
                    row.append(column)
                    left -= 1
            density.add(row)
            found.extend(index * columns + column for column in row)
        return np.array(found, np.int64)

    def _symbols(
        self, symbols: np.ndarray, places: np.ndarray, shape: tuple[int, int], bits: int
    ) -> np.ndarray:
        """Codes symbols below 2^bits, each in the light of its row: a channel has its own scale."""
        count = len(places)
        if not bits:
            return np.zeros(count, np.uint32)
        decisions = count * bits
        if decisions > min(_MOST_DECISIONS, self._decisions_left):
            return self._block(symbols.astype(np.uint8), count).astype(np.uint32)
        self._decisions_left -= decisions
        mixer = Mixer(self._coder, 2, learning_rate=0.01)
        given = symbols.tolist() if self._coder.encodes else [0] * count
        found = []
        for symbol, row in zip(given, (places // shape[1]).tolist(), strict=True):
            found.append(mixer.tree(symbol, bits, (0, row)))
        return np.array(found, np.uint32)

    def _plain(self, values: np.ndarray, count: int, bits: int) -> np.ndarray:
        """Codes numbers without anything in common, a byte at a time from the highest on."""
        # The sign goes to the end: the exponent of a float fills the first byte.
        values = (values << 1 | values >> bits - 1) & (1 << bits) - 1
        planes = [values >> shift & 255 for shift in range(bits - 8, -8, -8)]
        if count * bits > _MOST_PLAIN:
            planes = [self._block(plane.astype(np.uint8), count) for plane in planes]
        else:
            coded = np.zeros((count, len(planes)), np.uint32)
            given = np.stack(planes, axis=-1).tolist() if self._coder.encodes else coded.tolist()
            for index, number in enumerate(given):
                above = 0
                for place, byte in enumerate(number):
                    # The lower bytes of a float are noise, but in bfloat16 they are zero.
                    context = above if place < 2 else above == 0
                    above = self._bytes.tree(byte, 8, ((bits, place), (place, context)))
                    coded[index, place] = above
            planes = list(coded.T)
        result: np.ndarray = np.zeros(count, np.uint32)
        for plane in planes:
            result = result << 8 | plane.astype(np.uint32)
        return (result >> 1 | result << bits - 1) & (1 << bits) - 1

    def _number(self, number: int, what: str) -> int:
        return self._numbers.number(number, (what, (what, self._array)))

    def _block(self, symbols: np.ndarray, count: int) -> np.ndarray:
        if self._coder.encodes:
            self._blocks.append(_shortest(symbols))
            return symbols
        if not self._blocks:
            raise ValueError("a block is missing")
        block = self._blocks.pop(0)
        method, coded = block[:1], block[1:]
        if method == _BY_FREQUENCY:
            return decode(coded, count)
        if method != _BY_REPETITION:
            raise ValueError("a block of no known method")
        content = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_REPETITIONS).decompress(
            coded, count
        )
        if len(content) != count:
            raise ValueError("a block is cut off")
        return np.frombuffer(content, np.uint8)


class _Density:
    """What the rows so far tell of where the next row is not zero."""

    def __init__(self, columns: int, prior: float) -> None:
        self._counts = np.zeros(columns)
        self._rows = 0
        self._prior = prior

    def hazards(self) -> list[float]:
        """For each column, times ONE, the share that it has of what lies at or behind it.

        A column's density is the mean of a gamma distribution, updated by its count (its mean is
        the density of the whole, its shape the prior).
        """
        mean = (self._total() + 1.0) / ((self._rows + 1.0) * len(self._counts))
        densities = (self._counts + self._prior) / (self._rows * mean + self._prior)
        behind = np.cumsum(densities[::-1])[::-1]
        return (densities * ONE / behind).tolist()

    def add(self, row: list[int] | np.ndarray) -> None:
        self._counts[row] += 1
        self._rows += 1

    def _total(self) -> float:
        return float(self._counts.sum())


def _shortest(symbols: np.ndarray) -> bytes:
    by_frequency = encode(symbols)
    if len(by_frequency) < len(symbols) <= _LONGEST_REPETITIVE:
        by_repetition = _repetitions(symbols)
        if len(by_repetition) < len(by_frequency):
            return _BY_REPETITION + by_repetition
    return _BY_FREQUENCY + by_frequency


def _repetitions(symbols: np.ndarray) -> bytes:
    return lzma.compress(symbols.tobytes(), lzma.FORMAT_RAW, filters=_REPETITIONS)


def _sparse_bytes(table: np.ndarray) -> float:
    """About the bytes of a map and of fixed frequencies: how many there are in each row, in which
    places, and which values."""
    columns = table.shape[1]
    a_row = (table != 0).sum(axis=1)
    places = gammaln(columns + 1) - gammaln(a_row + 1) - gammaln(columns - a_row + 1)
    bits = _entropy_bits(a_row) + places.sum() / np.log(2) + _entropy_bits(table[table != 0])
    return float(bits) / 8


def _entropy_bits(values: np.ndarray) -> float:
    counts = np.unique(values, return_counts=True)[1]
    return float(-np.sum(counts * np.log2(counts / len(values))))


def _map_length(table: np.ndarray, prior: float) -> float:
    """The bits that a map's places will take, as `_places` codes them."""
    density = _Density(table.shape[1], prior)
    total = 0.0
    for row in table:
        places = np.flatnonzero(row)
        if len(places):
            last = places[-1] + 1
            left = len(places) - np.cumsum(row) + row
            chances = np.clip(left * np.array(density.hazards()) / ONE, 1 / ONE, 1 - 1 / ONE)
            total -= np.sum(np.log2(np.where(row, chances, 1 - chances)[:last]))
        density.add(places)
    return total


def _all_in(values: np.ndarray, palette: np.ndarray) -> bool:
    return all(np.isin(part, palette).all() for part in (values[:_FIRST_WORDS], values))


def _by_value(words: np.ndarray, bits: int) -> np.ndarray:
    """Keys that sort the bits of floats as the floats are sorted."""
    sign = 1 << bits - 1
    return np.where(words & sign, sign - (words & sign - 1).astype(np.int64) - 1, words + sign)
