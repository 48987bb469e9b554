"""From a traced Keras model to the bytes of an ONNX file with batch 1 (extra `onnx`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import numpy as np
import tensorflow as tf

from netopt_cli.contracts import ExportRecipe
from netopt_cli.errors import RunError
from netopt_cli.export.litert import FrozenGraph

if TYPE_CHECKING:
    import onnx

OPSET = 17
"""Per-channel quantization needs 13; tf2onnx 1.17 writes up to 18."""


@dataclass(frozen=True)
class OnnxFile:
    """An exported file.

    Attributes:
        content: Input float32 (1, *shape), output float32 (1, classes), also when it is int8.
        scheme: How it computes: not always as the recipe asks, see `to_onnx`.
    """

    content: bytes
    scheme: Literal["float32", "int8"]


def to_onnx(
    graph: FrozenGraph, recipe: ExportRecipe, calibration: Iterable[np.ndarray] = ()
) -> OnnxFile:
    """Converts to ONNX, and quantizes when the recipe asks for calibrated int8 in every kernel.

    `int8` is ONNX Runtime's static quantization in QDQ form: weights int8, symmetric, a scale for
    each channel; activations uint8. Weights keep to 7 bits, since the kernels for processors
    without VNNI add pairs of products in 16 bits, which 8-bit weights overflow (onnxruntime.ai,
    "Quantize ONNX models", reduce_range): with 8 bits the logits of an untrained LeNet-5 were off
    by 0.21 of their spread on such a processor, with 7 by 0.05. Ranges of activations are those
    seen (`minmax`), whatever `recipe.calibration`.

    Every other recipe gives a float32 file: ranges that were trained are written as pairs of
    QuantizeLinear and DequantizeLinear, so that it computes what the network does, with weights
    that are stored as float32.

    Args:
        calibration: Yields normalized samples, float32 (1, *shape), for `int8`.

    Raises:
        RunError: An operation has no counterpart in ONNX; it is named.
    """
    model = _convert(graph)
    if recipe.scheme == "int8" and not recipe.trained_ranges and not recipe.weight_bits:
        return OnnxFile(_quantize(model, calibration), "int8")
    return OnnxFile(model.SerializeToString(), "float32")


def _convert(graph: FrozenGraph) -> onnx.ModelProto:
    import tf2onnx
    import tf2onnx.tfonnx  # which counts a name itself, when it is first imported

    # Names count on from one conversion to the next, and are bytes of the file.
    tf2onnx.utils.INTERNAL_NAME = 1
    try:
        model, _ = tf2onnx.convert.from_graph_def(
            _inlinable(graph.frozen.graph.as_graph_def()),
            input_names=[graph.frozen.inputs[0].name],
            output_names=[graph.frozen.outputs[0].name],
            opset=OPSET,
        )
    except (ValueError, RuntimeError, NotImplementedError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise RunError(f"Cannot export onnx: the conversion failed: {first_line}") from error
    _refuse_unknown(model)
    return model


def _inlinable(graph: tf.compat.v1.GraphDef) -> tf.compat.v1.GraphDef:
    """Lets the optimizer open compiled calls, which Keras wraps grouped convolutions in."""
    functions = graph.library.function
    calls = [*graph.node, *(node for function in functions for node in function.node_def)]
    for holder in (*functions, *calls):
        for closing in ("_XlaMustCompile", "_noinline"):
            holder.attr.pop(closing, None)
    return graph


def _refuse_unknown(model: onnx.ModelProto) -> None:
    """tf2onnx leaves an operation that it cannot convert in the file, under its old name."""
    from onnx.defs import has

    unknown = sorted({n.op_type for n in model.graph.node if not has(n.op_type, n.domain)})
    if unknown:
        raise RunError(
            f"Cannot export onnx: ONNX has no operation for {', '.join(unknown)}. Replace the "
            "layer that uses it, or leave onnx out of export."
        )


class _Samples:
    """Gives the samples one by one, as ONNX Runtime's calibration asks for them."""

    def __init__(self, name: str, samples: Iterable[np.ndarray]) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = ({name: sample} for sample in samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _quantize(model: onnx.ModelProto, calibration: Iterable[np.ndarray]) -> bytes:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory() as folder:
        converted, folded, quantized = (str(Path(folder, f"{n}.onnx")) for n in range(3))
        Path(converted).write_bytes(model.SerializeToString())
        quant_pre_process(converted, folded, skip_symbolic_shape=True)  # every shape is known
        quantize_static(
            folded,
            quantized,
            _Samples(model.graph.input[0].name, calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return Path(quantized).read_bytes()
