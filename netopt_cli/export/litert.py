"""From a Keras model to the bytes of a LiteRT (.tflite) file with batch 1.

`freeze` traces the network once; the trace serves the conversion and the counting of MACs.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from netopt_cli.contracts import ExportRecipe, Scheme
from netopt_cli.errors import ConfigError, RunError
from netopt_cli.graph.quantizers import quantized_weights
from netopt_cli.graph.schemes import ARITHMETIC, weight_bits

_CONTROL_FLOW = {"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase"}


@dataclass(frozen=True, eq=False)
class FrozenGraph:
    """A model as a graph of batch 1, `training=False`: float32 (1, *shape) -> logits (1, classes).

    Attributes:
        model: What was traced.
        traced: The concrete function as it was traced: weights are variables, and every shape is
            known, also behind the compiled calls of grouped convolutions.
        frozen: The same with the weights folded to constants, which is what converts.
    """

    model: keras.Model
    traced: tf.types.experimental.ConcreteFunction
    frozen: tf.types.experimental.ConcreteFunction


def freeze(model: keras.Model) -> FrozenGraph:
    """Traces `model` at batch 1.

    The converter is never given the unfrozen function: its files would keep variable operations,
    and calibration fails on those.
    """

    def forward(x: tf.Tensor) -> tf.Tensor:
        return model(x, training=False)

    signature = tf.TensorSpec((1, *model.input_shape[1:]), model.inputs[0].dtype, name="x")
    traced = tf.function(forward, autograph=False).get_concrete_function(signature)
    return FrozenGraph(model, traced, convert_variables_to_constants_v2(traced))


def has_control_flow(graph: FrozenGraph) -> bool:
    return any(op.type in _CONTROL_FLOW for op in graph.traced.graph.get_operations())


def to_litert(
    graph: FrozenGraph, recipe: ExportRecipe, calibration: Iterator[np.ndarray] | None = None
) -> bytes:
    """Converts to a file that LiteRT's built-in kernels run alone: no Flex, no custom operation.

    Args:
        calibration: Yields normalized samples, float32 (1, *shape). Needed by the schemes with
            integer activations: they fix the ranges of those (Jacob et al., 2018,
            arXiv:1712.05877). Not read with `recipe.trained_ranges`: the fake-quantization
            operations of the graph hold the ranges. (Per-channel ranges of a kernel convert in
            convolutions, a dense layer's do not: the converter fails on the transposition, so give
            it one range or make it a convolution.)

    Returns:
        The flatbuffer. Input and output are float32, or for the schemes with integer activations
        quantized int8 (int16 for `int16x8`).

    Raises:
        ConfigError: Integer activations without a calibration sample.
        RunError: An operation has no kernel in LiteRT; it is named.
    """
    samples: list[np.ndarray] = []
    if ARITHMETIC[recipe.scheme] == "integer":
        _refuse_loops(graph, recipe.scheme)
        if not recipe.trained_ranges:
            samples = list(calibration or ())
            if not samples:
                raise ConfigError(
                    f"calibration_samples must be at least 1 to export {recipe.scheme}. "
                    f"Received: calibration_samples={recipe.calibration_samples}"
                )
    if recipe.scheme == "float32" or _is_plain_int8(recipe):
        return _convert(graph, recipe.scheme, samples)
    return _quantize(graph, recipe, samples)


def _quantize(graph: FrozenGraph, recipe: ExportRecipe, samples: Sequence[np.ndarray]) -> bytes:
    """Quantizes the float32 file of a network whose kernels are rounded already.

    Rounding them again changes nothing. Had it to be done first after BatchNorm was folded in, the
    noise of that would decide about every weight halfway between two integers, and a codebook has
    thousands of the same.
    """
    from netopt_cli.export.quantized import quantize_file  # 0.6 s, for those who quantize

    bits = weight_bits(graph.model, recipe.scheme, recipe.weight_bits)
    integers = {path: width for path, width in bits.items() if width <= 8}
    with quantized_weights(graph.model, integers):
        rounded = replace(graph, frozen=convert_variables_to_constants_v2(graph.traced))
        return quantize_file(_convert(rounded, "float32", ()), graph.model, recipe, samples)


def _is_plain_int8(recipe: ExportRecipe) -> bool:
    """What the converter does itself: it knows more operations than the quantizer of files."""
    is_plain = recipe.calibration == "minmax" and not recipe.weight_bits
    return recipe.scheme == "int8" and (is_plain or recipe.trained_ranges)


def _convert(graph: FrozenGraph, scheme: Scheme, samples: Sequence[np.ndarray]) -> bytes:
    """Converts to float32, or to int8 with ranges from the samples; from the graph without any."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph.frozen])
    if scheme == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
        if samples:
            converter.representative_dataset = lambda: ([sample] for sample in samples)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    try:
        with warnings.catch_warnings():
            # "Statistics for quantized inputs were expected": the calibration gives them.
            warnings.simplefilter("ignore", UserWarning)
            return converter.convert()
    except (ConverterError, RuntimeError, ValueError) as error:
        raise RunError(_explain(str(error), scheme)) from error


def _refuse_loops(graph: FrozenGraph, scheme: Scheme) -> None:
    """LiteRT's calibration ends the whole process on control flow, so it must not get there."""
    for op in graph.traced.graph.get_operations():
        if op.type in _CONTROL_FLOW:
            raise RunError(
                f"Cannot export {scheme}: the operation {op.type} ({op.name}) is control flow, "
                "which cannot be calibrated. Unroll the layer (`unroll=True` of LSTM and GRU) or "
                "use a scheme with float activations."
            )


def _explain(message: str, scheme: str) -> str:
    """One line out of the converter's page: the operation and what to do."""
    unsupported = re.search(r"(?:TF Select|Custom) ops: (.+)", message)
    if unsupported:
        return (
            f"Cannot export {scheme}: LiteRT has no built-in kernel for {unsupported[1].strip()}. "
            "Replace the layer that uses it by one made of other operations."
        )
    op = re.search(r"'(tfl?\.\w+)' op|for op: '?(\w+)", message)
    which = f" at the operation {op[1] or op[2]}" if op else ""
    first_line = message.strip().partition("\n")[0]
    return f"Cannot export {scheme}: the conversion failed{which}: {first_line}"
