"""Numbers of few bytes when they are small: seven bits a byte, the lowest first."""

from __future__ import annotations

_LONGEST = 5


def varint(number: int) -> bytes:
    """The highest bit of a byte says that more follow."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns the number at `at` and where it ends.

    Raises:
        IndexError: The bytes end before the number.
        ValueError: It is longer than 35 bits.
    """
    number = 0
    for index in range(_LONGEST):
        byte = data[at + index]
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number, at + index + 1
    raise ValueError("a number is too long")
