"""What the values of a sample are: measured values, tokens of a text, numbers of users and items.

A sample is one tensor, whatever it is made of: a file then has one input, and everything that is
measured of images is measured of texts alike. An arch for more than plain values takes the `inputs`
and takes the tensor apart by its fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["values", "tokens", "ids"]

PADDING, UNKNOWN = 0, 1
"""Tokens of every vocabulary: what fills up the end of a short text, and a word never seen."""


@dataclass(frozen=True)
class Field:
    """A part of a sample.

    Attributes:
        name: Unlike that of every other field.
        kind: `values` are numbers to compute with; `tokens` are numbers in a vocabulary, of which 0
            is padding at the end and 1 unknown; `ids` are numbers of things, from 0.
        shape: Of the part alone.
        vocabulary: How many different tokens or ids there are.
        ngrams_from: Of tokens, the first number that stands for an n-gram, which has no place in
            the order of the others; 0: there are none.
        multiply: What whole-numbered values are multiplied with, where others are beside them.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    vocabulary: int = 0
    ngrams_from: int = 0
    multiply: float = 1.0

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Inputs:
    """The fields of a sample, in the order in which they lie in it.

    Attributes:
        fields: None for a sample of values alone, in the shape that it has. Otherwise a sample is
            (sum of their sizes,) int32.
    """

    fields: tuple[Field, ...] = ()

    @property
    def dtype(self) -> Literal["float32", "int32"]:
        return "int32" if self.fields else "float32"

    @property
    def are_values(self) -> bool:
        return not self.fields

    @property
    def is_text(self) -> bool:
        """Whether a sample is a text and nothing else."""
        return [field.kind for field in self.fields] == ["tokens"]

    def describe(self) -> str:
        return " and ".join(f"{field.name} ({field.kind})" for field in self.fields) or "values"

    def parts(self, x: Any) -> dict[str, Any]:
        """Takes a Keras tensor (batch, size) apart: name -> (batch, *shape), int32; float32 of
        values."""
        import keras

        found, start = {}, 0
        for field in self.fields:
            part = x[:, start : start + field.size] if len(self.fields) > 1 else x
            start += field.size
            if field.kind == "values":
                part = keras.ops.cast(part, "float32") * field.multiply
            if len(field.shape) != 1:
                part = keras.layers.Reshape(field.shape, name=f"{field.name}_shape")(part)
            found[field.name] = part
        return found


VALUES = Inputs()
"""What most samples are."""
