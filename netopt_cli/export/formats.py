"""The formats a network is exported to: LiteRT always, further ones by `export=[…]`.

No TensorFlow is imported here: the configuration side checks the key too.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Literal, get_args

from netopt_cli.errors import MissingExtraError

Format = Literal["litert", "onnx", "saved_model"]
FORMATS: tuple[Format, ...] = get_args(Format)
Requested = Format | tuple[Format, ...]
"""What the key `export` takes: one format or a list."""

FILES: dict[Format, str] = {
    "litert": "model.tflite",
    "onnx": "model.onnx",
    "saved_model": "saved_model",
}
"""What each is called in the folder of a stage; that of `saved_model` is a directory."""

_EXTRA_PACKAGES: dict[Format, tuple[str, ...]] = {"onnx": ("onnx", "onnxruntime", "tf2onnx")}


def further(requested: str | Sequence[str]) -> tuple[Format, ...]:
    """Returns the formats beside LiteRT, each once, in the order of `FORMATS`.

    Raises:
        MissingExtraError: The packages of a format are not installed.
    """
    asked = {requested} if isinstance(requested, str) else set(requested)
    for format_, packages in _EXTRA_PACKAGES.items():
        if format_ in asked and not all(map(importlib.util.find_spec, packages)):
            raise MissingExtraError(f"export=[{format_}]", format_)
    return tuple(format_ for format_ in FORMATS if format_ in asked and format_ != "litert")
