"""Adaptive binary arithmetic coding: bits cost what a model, learned on the way, thinks of them.

Coding is written once for both directions. A coder's `code(bit, probability)` takes the bit when
it encodes and finds it out when it decodes, and returns it either way, so that a model which calls
it goes through the same states in both.

The same stream must decode on every machine: probabilities come out of additions,
multiplications and divisions of doubles, which IEEE 754 fixes, and of a table of integers.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import cache
from typing import Protocol

ONE = 1 << 16
"""A probability of 1. What is passed to `code` lies between 1 and ONE - 1."""

_MASK = 0xFFFFFFFF
_FINE = 256
"""Steps of a unit of log-odds."""
_WIDEST = 11 * _FINE

_EVEN = ONE / 2
_MEMORY = 254
"""Occurrences of a context after which the older ones begin to be forgotten."""
_Slots = dict[int, list]
"""By node: the probability of a one, times ONE, and how often it was met."""


class Coder(Protocol):
    """One direction."""

    encodes: bool

    def code(self, bit: int, probability: int) -> int:
        """Codes a bit that is 1 with `probability` / ONE, and returns it. A decoder does not look
        at the one it is given."""
        ...


class Encoder:
    """Keeps an interval that shrinks by the probability of each bit (Witten et al., 1987)."""

    encodes = True

    def __init__(self) -> None:
        self._low = 0
        self._high = _MASK
        self._out = bytearray()

    def code(self, bit: int, probability: int) -> int:
        middle = self._low + ((self._high - self._low) * probability >> 16)
        if bit:
            self._high = middle
        else:
            self._low = middle + 1
        while (self._low ^ self._high) < 1 << 24:
            self._out.append(self._high >> 24)
            self._low = self._low << 8 & _MASK
            self._high = self._high << 8 & _MASK | 255
        return bit

    def finish(self) -> bytes:
        """Returns the stream; the decoder takes what is missing at its end as zeros."""
        self._out.append(self._high >> 24)
        return bytes(self._out).rstrip(b"\0")


class Decoder:
    """The reverse of `Encoder`. Any bytes decode to something; checksums tell."""

    encodes = False

    def __init__(self, stream: bytes) -> None:
        self._low = 0
        self._high = _MASK
        self._stream = iter(stream)
        self._value = 0
        for _ in range(4):
            self._value = self._value << 8 | next(self._stream, 0)

    def code(self, bit: int, probability: int) -> int:
        middle = self._low + ((self._high - self._low) * probability >> 16)
        bit = int(self._value <= middle)
        if bit:
            self._high = middle
        else:
            self._low = middle + 1
        while (self._low ^ self._high) < 1 << 24:
            self._low = self._low << 8 & _MASK
            self._high = self._high << 8 & _MASK | 255
            self._value = self._value << 8 & _MASK | next(self._stream, 0)
        return bit


class Mixer:
    """Predicts bits from several contexts at once.

    In each context a probability is learned, quickly at first. Their log-odds are summed with
    weights that are learned too, by the gradient of the code length (Mahoney, 2005, "Adaptive
    weighing of context models for lossless data compression"); there are weights for each set of
    contexts that have been met before.
    """

    def __init__(self, coder: Coder, contexts: int, *, learning_rate: float) -> None:
        """
        Args:
            contexts: How many there are of them for every bit.
        """
        self.coder = coder
        self._tables: list[dict[Hashable, _Slots]] = [{} for _ in range(contexts)]
        self._weights: dict[int, list[float]] = {}
        self._learning_rate = learning_rate / (ONE * _FINE)
        self._rates = [1 / (count + 1.6) for count in range(_MEMORY + 1)]
        self._trusts = [count / (count + 0.4) for count in range(_MEMORY + 1)]
        self._stretch, self._squash = log_odds_tables()

    def tree(self, symbol: int, bits: int, contexts: Sequence[Hashable]) -> int:
        """Codes a symbol below 2^bits from its highest bit on, each in the light of those before.

        Args:
            contexts: What else each bit is seen in.
        """
        slots = self._enter(contexts)
        node = 1
        for shift in range(bits - 1, -1, -1):
            node = 2 * node + self._code(symbol >> shift & 1, slots, node)
        return node - (1 << bits)

    def number(self, number: int, contexts: Sequence[Hashable]) -> int:
        """Codes a number from -2^62 to 2^62: how long it is, then its bits.

        The two bits after the leading one are seen together, the others in their place alone.
        """
        slots = self._enter(contexts)
        folded = 2 * number if number >= 0 else -2 * number - 1
        length = 0
        while length < 64 and self._code(int(folded >> length > 0), slots, length):
            length += 1
        prefix = min(length, 1)
        for shift in range(length - 2, -1, -1):
            seen = prefix if length - shift <= 3 else 0
            place = (length << 6 | shift) << 3 | seen | 1 << 20
            prefix = 2 * prefix + self._code(folded >> shift & 1, slots, place)
        return prefix // 2 if prefix % 2 == 0 else -(prefix // 2) - 1

    def _enter(self, contexts: Sequence[Hashable]) -> list[_Slots]:
        """The slots that each context has."""
        found = []
        for table, context in zip(self._tables, contexts, strict=True):
            slots = table.get(context)
            if slots is None:
                slots = table[context] = {}
            found.append(slots)
        return found

    def _code(self, bit: int, contexts: list[_Slots], node: int) -> int:
        """Codes a bit and learns from it; `node` tells it from others in the same contexts."""
        slots, odds, met = [], [], 0
        for context in contexts:
            slot = context.get(node)
            if slot is None:
                slot = context[node] = [_EVEN, 0]
                odds.append(0.0)
                met += met
            else:
                odds.append(self._stretch[int(slot[0])] * self._trusts[slot[1]])
                met += met + 1
            slots.append(slot)
        weights = self._weights.get(met)
        if weights is None:
            weights = self._weights[met] = [1.2 / max(1, met.bit_count())] * len(odds)
        total = 0.0
        for weight, each in zip(weights, odds, strict=True):
            total += weight * each
        total = min(max(total, -_WIDEST), _WIDEST)
        probability = self._squash[int(total) + _WIDEST]
        bit = self.coder.code(bit, probability)
        aim = ONE - 1 if bit else 0
        step = (aim - probability) * self._learning_rate
        for index, each in enumerate(odds):
            weights[index] += step * each
        for slot in slots:
            count = slot[1]
            slot[0] += (aim - slot[0]) * self._rates[count]
            if count < _MEMORY:
                slot[1] = count + 1
        return bit


@cache
def log_odds_tables() -> tuple[list[float], list[int]]:
    """Log-odds, in steps, of each probability; and the probability of each step of log-odds.

    The second is rounded to integers, so that the last bit of `exp`, which differs among
    platforms, does not matter; the first is its inverse.
    """
    squash = [
        min(max(round(ONE / (1 + math.exp(-step / _FINE))), 1), ONE - 1)
        for step in range(-_WIDEST, _WIDEST + 1)
    ]
    stretch, step = [], 0
    for probability in range(ONE):
        while step < 2 * _WIDEST and squash[step] < probability:
            step += 1
        stretch.append(float(step - _WIDEST))
    return stretch, squash
