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

    def __init__(
        self, coder: Coder, contexts: int, *, learning_rate: float, memory: int = 255
    ) -> None:
        """
        Args:
            memory: Occurrences of a context after which the older ones begin to be forgotten.
        """
        self._coder = coder
        self._tables: list[dict[Hashable, list]] = [{} for _ in range(contexts)]
        self._weights: dict[int, list[float]] = {}
        self._learning_rate = learning_rate / ONE
        self._rates = [1 / (count + 1.6) for count in range(memory)]
        self._trusts = [count / (count + 0.4) for count in range(memory)]
        self._stretch, self._squash = log_odds_tables()

    def code(self, bit: int, contexts: Sequence[Hashable]) -> int:
        """Codes a bit in its `contexts`, as many as said, and learns from it."""
        slots, odds, met = [], [], 0
        for table, context in zip(self._tables, contexts, strict=True):
            slot = table.get(context)
            if slot is None:
                slot = table[context] = [ONE / 2, 0]
            met = 2 * met + (slot[1] > 0)
            slots.append(slot)
            odds.append(self._stretch[int(slot[0])] * self._trusts[slot[1]])
        weights = self._weights.get(met)
        if weights is None:
            weights = self._weights[met] = [1.2 / max(1, met.bit_count())] * len(odds)
        total = 0.0
        for weight, each in zip(weights, odds, strict=True):
            total += weight * each
        total = min(max(total, -_WIDEST), _WIDEST)
        probability = self._squash[int(total) + _WIDEST]
        bit = self._coder.code(bit, probability)
        aim = ONE - 1 if bit else 0
        step = (aim - probability) * self._learning_rate / _FINE
        for index, each in enumerate(odds):
            weights[index] += step * each
        last = len(self._rates) - 1
        for slot in slots:
            count = slot[1]
            slot[0] += (aim - slot[0]) * self._rates[count]
            if count < last:
                slot[1] = count + 1
        return bit


def code_tree(mixer: Mixer, symbol: int, bits: int, contexts: Sequence[Hashable]) -> int:
    """Codes a symbol below 2^bits from its highest bit on, each bit in the light of those before.

    Args:
        contexts: What else each bit is seen in, one entry for each context of the mixer.
    """
    node = 1
    for shift in range(bits - 1, -1, -1):
        bit = symbol >> shift & 1
        node = 2 * node + mixer.code(bit, [(context, node) for context in contexts])
    return node - (1 << bits)


def code_number(mixer: Mixer, number: int, contexts: Sequence[Hashable]) -> int:
    """Codes a number from -2^63 to 2^63 - 1: first how long it is, then its bits.

    The two highest bits after the leading one are seen in the contexts, the others in their place
    alone.
    """
    folded = 2 * number if number >= 0 else -2 * number - 1
    length = 0
    while length < 64:
        more = int(folded >> length > 0)
        if not mixer.code(more, [(context, length) for context in contexts]):
            break
        length += 1
    prefix = min(length, 1)
    for shift in range(length - 2, -1, -1):
        bit = folded >> shift & 1
        seen = prefix if length - shift <= 3 else 0
        place = (length, shift, seen)
        prefix = 2 * prefix + mixer.code(bit, [(context, place) for context in contexts])
    return prefix // 2 if prefix % 2 == 0 else -(prefix // 2) - 1


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
