"""What each scheme of `ExportRecipe` means, and the bits that a file gives to each weight.

    scheme         weights          activations
    float32        float            float
    float16        16-bit floats    float: weights are widened when the file is loaded
    int8           8 bits           8 bits by calibrated ranges, input and output too
    int8x4         4 bits           the same
    int16x8        8 bits           16 bits by calibrated ranges, input and output too
    dynamic        8 bits           float, rounded to 8 bits by their range in each inference
    dynamic_int4   4 bits           the same
    weight_int8    8 bits           float: weights are widened, the arithmetic is float
    weight_int4    4 bits           the same

Integer weights are symmetric with a scale for each output channel, or each row of an embedding.
What has no kernel for 4 bits (depthwise and transposed convolutions, embeddings among float
activations) has 8 under the schemes of 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

import keras

from netopt_cli.contracts import Scheme
from netopt_cli.errors import InputError
from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.quantizers import owners

Arithmetic = Literal["float", "dynamic", "integer"]

WEIGHT_BITS: Mapping[Scheme, int] = {
    "float32": 32,
    "float16": 16,
    "int8": 8,
    "int8x4": 4,
    "int16x8": 8,
    "dynamic": 8,
    "dynamic_int4": 4,
    "weight_int8": 8,
    "weight_int4": 4,
}

ARITHMETIC: Mapping[Scheme, Arithmetic] = {
    "float32": "float",
    "float16": "float",
    "int8": "integer",
    "int8x4": "integer",
    "int16x8": "integer",
    "dynamic": "dynamic",
    "dynamic_int4": "dynamic",
    "weight_int8": "float",
    "weight_int4": "float",
}
"""`integer` needs calibrated ranges of the activations."""

_AT_LEAST_8 = (
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
)
_FLOAT_ONLY = (keras.layers.Conv3D, keras.layers.Conv3DTranspose)


def weight_bits(
    model: keras.Model, scheme: Scheme, overrides: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Returns path -> bits of each kernel in an exported file; 16 and 32 are floats.

    Args:
        overrides: Path -> bits other than the scheme's (`ExportRecipe.weight_bits`).
    """
    owner = owners(model)
    asked = dict.fromkeys(kernels(model), WEIGHT_BITS[scheme]) | dict(overrides or {})
    return {
        path: _possible_bits(owner[path], variable, asked[path], scheme)
        for path, variable in kernels(model).items()
    }


def _possible_bits(
    owner: keras.Layer | None, variable: keras.Variable, bits: int, scheme: Scheme
) -> int:
    if isinstance(owner, _FLOAT_ONLY):
        return 32
    # Rows that are looked up have 8 bits at least: see `export.row_tables`.
    if isinstance(owner, keras.layers.Embedding) and ARITHMETIC[scheme] != "integer":
        return max(bits, 8) if bits < 16 else 32
    if isinstance(owner, _AT_LEAST_8) or variable.name == "depthwise_kernel":
        return max(bits, 8)
    return bits


def kept_float(model: keras.Model, patterns: Sequence[str], key: str) -> dict[str, int]:
    """Returns path -> 32 for the kernels that fit one of the patterns.

    Args:
        key: Of the patterns in the config, for the message.

    Raises:
        InputError: A pattern fits no kernel, or together they fit all.
    """
    paths = list(kernels(model))
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise InputError(
                f"{key} must fit the path of a weight. Received: '{pattern}'; "
                f"weights: {', '.join(paths)}"
            )
    kept = {path: 32 for path in paths if any(fnmatchcase(path, p) for p in patterns)}
    if kept and len(kept) == len(paths):
        raise InputError(f"{key} leaves no weight to quantize. Received: {list(patterns)}")
    return kept
