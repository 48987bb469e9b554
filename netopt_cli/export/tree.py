"""Coding of a network's structure: the object tree of its file, without the long arrays.

A field that has its default is not coded at all; the others are coded in the light of what the same
field was before. A newer schema, which may only append fields, reads what an older one wrote.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from netopt_cli.export.entropy import Coder, Mixer
from netopt_cli.export.flatbuffer import Buffer

_TABLES: dict[tuple[str, str], type] = {
    ("ModelT", "operatorCodes"): schema.OperatorCodeT,
    ("ModelT", "subgraphs"): schema.SubGraphT,
    ("ModelT", "buffers"): Buffer,
    ("SubGraphT", "tensors"): schema.TensorT,
    ("SubGraphT", "operators"): schema.OperatorT,
    ("TensorT", "quantization"): schema.QuantizationParametersT,
}
_UNION = ("OperatorT", "builtinOptions")
_INDICES = {("OperatorT", "inputs"), ("OperatorT", "outputs"), ("SubGraphT", "inputs")}
_DATA = ("Buffer", "data")
_SCALE = ("QuantizationParametersT", "scale")
_DTYPES = tuple(
    np.dtype(name)
    for name in ("int32", "int64", "float32", "uint8", "int8", "bool", "uint32", "float64")
)
_MOST_ENTRIES = 1 << 20
"""Tables, letters and numbers: more than any network has, and a bound for damaged files."""
_TEXT, _TABLE, _TABLE_LIST, _NUMBERS = range(4)


class UnsupportedError(Exception):
    """The tree has something that is not coded."""


class TreeCoder:
    """Codes the trees of models; what it learned from one serves the next."""

    def __init__(self, coder: Coder) -> None:
        self._mixer = Mixer(coder, 5, learning_rate=0.02)
        self._letters = Mixer(coder, 5, learning_rate=0.02)
        self._past: dict[Hashable, tuple[Any, Any]] = {}
        self._room = 0
        self._entries_left = 0
        self._fresh: dict[Hashable, int] = {}

    def go_on(self, coder: Coder) -> None:
        """Codes the next models by another coder, with what was learned so far."""
        self._mixer.coder = self._letters.coder = coder

    def code(self, model: Any, room: int) -> Any:
        """Codes a `ModelT`; a decoder, given None, returns it.

        The data of buffers and the scales of quantization are left at their length: zeros.

        Args:
            room: Most bytes that all arrays may take together.

        Raises:
            UnsupportedError: Encoding, when a part of the tree has no code.
            ValueError: Decoding, when the stream is damaged; encoding, when there are too many
                entries.
        """
        self._room = room
        self._entries_left = _MOST_ENTRIES
        self._fresh = {}
        return self._table(schema.ModelT, model)

    def flag(self, value: bool, what: str) -> bool:
        """Codes a fact about the model."""
        return bool(self._number(int(value), what))

    def _table(self, kind: type, given: Any) -> Any:
        result = kind()
        owner = kind.__name__
        fields = list(vars(result))
        if owner == "SubGraphT":
            self._fresh.pop("tensor", None)
        at = 0
        while True:
            step = 0
            if given is not None:
                changed = (
                    index
                    for index in range(at, len(fields))
                    if not _same(getattr(given, fields[index]), getattr(result, fields[index]))
                )
                step = next(changed, at - 1) - at + 1
            step = self._number(step, (owner, at))
            if not step:
                return result
            at += step
            if not 0 < at <= len(fields):
                raise ValueError("an unknown field")
            field = fields[at - 1]
            value = self._field((owner, field), getattr(given, field, None), result)
            setattr(result, field, value)

    def _field(self, where: tuple[str, str], value: Any, result: Any) -> Any:
        default = getattr(result, where[1])
        if default is not None:
            return self._scalar(where, value or 0, default)
        kind = self._number(self._kind(where, value), (*where, "kind"))
        if kind == _TEXT:
            return self._text(value)
        if kind == _NUMBERS:
            return self._numbers(value, where)
        table = self._class(where, result)
        if kind == _TABLE:
            return self._table(table, value)
        if kind != _TABLE_LIST:
            raise ValueError("an unknown kind of field")
        count = self._entries(self._length(value, where, 1))
        return [self._table(table, None if value is None else value[i]) for i in range(count)]

    def _scalar(self, where: tuple[str, str], value: float, default: Any) -> float:
        if isinstance(default, bool):
            return not default
        if isinstance(default, float):
            bits = struct.unpack("<i", struct.pack("<f", value))[0]
            return struct.unpack("<f", struct.pack("<i", self._number(bits, where)))[0]
        if where == ("TensorT", "buffer"):
            # Buffer 0 is the one of tensors without data.
            return self._index(int(value) - 1, where, "buffer") + 1
        return self._number(int(value), where)

    def _kind(self, where: tuple[str, str], value: Any) -> int:
        """Says how to code what has no default; 0 for a decoder."""
        if value is None or isinstance(value, bytes):
            return _TEXT
        if isinstance(value, np.ndarray) and value.dtype in _DTYPES:
            return _NUMBERS
        if isinstance(value, list) and where in _TABLES:
            return _TABLE_LIST
        if where in _TABLES or where == _UNION:
            return _TABLE
        raise UnsupportedError(".".join(where))

    def _class(self, where: tuple[str, str], result: Any) -> type:
        if where == _UNION:
            names = {code: name for name, code in vars(schema.BuiltinOptions).items()}
            kind = getattr(schema, f"{names.get(result.builtinOptionsType)}T", None)
        else:
            kind = _TABLES.get(where)
        if kind is None:
            raise ValueError("an unknown table")
        return kind

    def _numbers(self, value: np.ndarray | None, where: tuple[str, str]) -> np.ndarray:
        code = self._number(0 if value is None else _DTYPES.index(value.dtype), (*where, "type"))
        if not 0 <= code < len(_DTYPES):
            raise ValueError("an unknown type of numbers")
        dtype = _DTYPES[code]
        count = self._length(value, where, dtype.itemsize)
        found = np.zeros(count, dtype)
        if where in (_DATA, _SCALE) or not count:
            return found
        if dtype.kind == "f":
            if value is not None and value.any():
                raise UnsupportedError(".".join(where))
            return found
        given = found.tolist() if value is None else value.tolist()
        if where in _INDICES:
            self._entries(count)
            found[:] = [self._index(each, where, "tensor", i) for i, each in enumerate(given)]
        elif self._number(int(len(set(given)) == 1), (*where, "same")):
            found[:] = self._number(given[0], where, count)
        else:
            self._entries(count)
            before = 0
            for index, each in enumerate(given):
                before = self._number(each, (*where, min(index, 4)), before)
                found[index] = before
        return found

    def _index(self, value: int, where: Hashable, pool: str, place: int = 0) -> int:
        """Codes an index as how far it is behind the first that has not been seen, which is as a
        rule the next; -1 stands for none."""
        fresh = self._fresh.get(pool, 0)
        behind = fresh - value
        if value < 0:
            behind = -1
        elif behind < 0:
            behind -= 1
        behind = self._number(behind, (where, place))
        if behind == -1:
            return -1
        value = fresh - (behind if behind >= 0 else behind + 1)
        self._fresh[pool] = max(fresh, value + 1)
        return value

    def _text(self, value: bytes | None) -> bytes:
        count = self._entries(self._length(value, ("text", ""), 1))
        found = bytearray(4)
        for index in range(count):
            letter = 0 if value is None else value[index]
            contexts = [bytes(found[len(found) - order :]) for order in (0, 1, 2, 3, 4)]
            contexts[0] = b""
            found.append(self._letters.tree(letter, 8, contexts))
        return bytes(found[4:])

    def _length(self, value: Any, where: tuple[str, str], itemsize: int) -> int:
        count = self._number(0 if value is None else len(value), (*where, "length"))
        self._room -= count * itemsize
        if count < 0 or self._room < 0:
            raise ValueError("more than the file can hold")
        return count

    def _entries(self, count: int) -> int:
        """Returns `count` if so much may still be coded one by one."""
        self._entries_left -= count
        if self._entries_left < 0:
            raise ValueError("more entries than a network has")
        return count

    def _number(self, number: int, where: Hashable, beside: Any = None) -> int:
        last, before = self._past.get(where, (None, None))
        contexts = ("", where, (where, last), (where, last, before), (where, beside, last))
        number = self._mixer.number(int(number), contexts)
        self._past[where] = (number, last)
        return number


def _same(value: Any, default: Any) -> bool:
    if value is None or isinstance(value, np.ndarray | list | bytes):
        return value is None and default is None
    return value == default
