"""Quantizing a float32 LiteRT file by ai-edge-quantizer.

It writes what `TFLiteConverter` does not: 4-bit weights, a choice of bits for each kernel, and
ranges of activations that are chosen here (see `export.ranges`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import TFLOperationName
from ai_edge_quantizer.quantizer import Quantizer
from ai_edge_quantizer.recipe_manager import RecipeManager

from netopt_cli.contracts import ExportRecipe, Scheme
from netopt_cli.errors import RunError
from netopt_cli.export.flatbuffer import read, write
from netopt_cli.export.kernel_ops import kernel_ops
from netopt_cli.export.ranges import Range, activation_ranges
from netopt_cli.export.row_tables import with_integer_rows
from netopt_cli.graph.quantizers import embeddings
from netopt_cli.graph.schemes import ARITHMETIC, WEIGHT_BITS, weight_bits

_ANY = ".*"
_FEW_BITS = (TFLOperationName.FULLY_CONNECTED, TFLOperationName.CONV_2D)
"""Operations whose kernels may have fewer than 8 bits."""
_FROM_SCHEMA = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}
"""Operations that ai-edge-quantizer has another name for."""


def quantize_file(
    content: bytes, model: keras.Model, recipe: ExportRecipe, samples: Sequence[np.ndarray] = ()
) -> bytes:
    """Quantizes a file as the recipe says.

    Args:
        content: The float32 file that `model` was exported to, with the kernels it has now.
        samples: Normalized samples, float32 (1, *shape), for the schemes with integer activations.

    Raises:
        RunError: A kernel of `recipe.weight_bits` is not in the file, or LiteRT cannot run what
            became of it.
    """
    rules = _rules(recipe)
    bits = weight_bits(model, recipe.scheme, recipe.weight_bits)
    is_integer = ARITHMETIC[recipe.scheme] == "integer"
    tables = [] if is_integer else [p for p in embeddings(model) if bits[p] <= 8]
    found = kernel_ops(content, model) if recipe.weight_bits or tables else {}
    looked_up = {op.output for path in tables for op in found[path] if op.operation == "GATHER"}
    for path, ops in found.items():
        if path not in recipe.weight_bits or path in tables:
            continue
        if not ops and not recipe.bits_where_possible:
            raise RunError(
                f"Cannot export {recipe.scheme} with {bits[path]} bits for {path}: conversion has "
                "made another weight of it. Leave it at the bits of the scheme."
            )
        for op in ops:
            operation = TFLOperationName(_FROM_SCHEMA.get(op.operation, op.operation))
            _add_rule(rules, recipe.scheme, f"^{re.escape(op.output)};$", operation, bits[path])
    quantizer = Quantizer(content, rules.get_quantization_recipe())
    statistics = None
    if quantizer.need_calibration:
        ranges = activation_ranges(content, samples, recipe, _activation_bits(recipe.scheme))
        statistics = _statistics(content, ranges)
    result = quantizer.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    quantized = _repaired(bytes(result.quantized_model))
    if looked_up:
        quantized = with_integer_rows(quantized, looked_up)
    _refuse_unloadable(quantized, recipe)
    return quantized


def _rules(recipe: ExportRecipe) -> RecipeManager:
    """The rules for a whole file; of two that fit an operation the later one counts."""
    rules = RecipeManager()
    bits = WEIGHT_BITS[recipe.scheme]
    _add_rule(rules, recipe.scheme, _ANY, TFLOperationName.ALL_SUPPORTED, max(bits, 8))
    for operation in _FEW_BITS if bits < 8 else ():
        _add_rule(rules, recipe.scheme, _ANY, operation, bits)
    return rules


def _add_rule(
    rules: RecipeManager, scheme: Scheme, outputs: str, operation: TFLOperationName, bits: int
) -> None:
    """Adds the rule for the operations of a kind whose outputs match an expression."""
    if bits == 32:
        rules.add_quantization_config(outputs, operation, algorithm_key=AlgorithmName.NO_QUANTIZE)
    elif bits == 16:
        rules.add_weight_only_config(
            outputs, operation, bits, algorithm_key=AlgorithmName.FLOAT_CASTING
        )
    elif ARITHMETIC[scheme] == "integer":
        rules.add_static_config(outputs, operation, _activation_bits(scheme), bits)
    elif ARITHMETIC[scheme] == "dynamic":
        rules.add_dynamic_config(outputs, operation, bits)
    else:
        rules.add_weight_only_config(outputs, operation, bits)


def _activation_bits(scheme: Scheme) -> int:
    return 16 if scheme == "int16x8" else 8


def _statistics(content: bytes, ranges: Mapping[str, Range]) -> dict[str, dict[str, np.ndarray]]:
    """The ranges in the form of ai-edge-quantizer: arrays of the rank of their tensor."""
    ranks = {t.name.decode(): len(t.shape) for t in read(content).subgraphs[0].tensors}
    return {
        name: {
            "min": np.full([1] * ranks[name], low, np.float32),
            "max": np.full([1] * ranks[name], high, np.float32),
        }
        for name, (low, high) in ranges.items()
    }


def _repaired(content: bytes) -> bytes:
    """Moves the data that ai-edge-quantizer appends to the flatbuffer into its buffers, and gives
    outputs that nothing reads the type of those beside them.

    It leaves those in float, as the forget gate of the first step of an LSTM, and XNNPACK refuses
    an operation whose outputs are of two types.
    """
    model = read(content)
    graph = model.subgraphs[0]
    read_tensors = {*graph.outputs, *(index for op in graph.operators for index in op.inputs)}
    for op in graph.operators:
        beside = [graph.tensors[index] for index in op.outputs if index in read_tensors]
        for index in op.outputs if beside else ():
            if index not in read_tensors:
                graph.tensors[index].type = beside[0].type
                graph.tensors[index].quantization = beside[0].quantization
    for buffer in model.buffers:
        if buffer.size:
            data = content[buffer.offset : buffer.offset + buffer.size]
            buffer.data = np.frombuffer(data, np.uint8)
            buffer.offset = buffer.size = 0
    return write(model)


def _refuse_unloadable(content: bytes, recipe: ExportRecipe) -> None:
    """LiteRT finds some scales that do not fit together when it loads the file."""
    try:
        Interpreter(model_content=content).allocate_tensors()
    except RuntimeError as error:
        is_int8 = recipe.scheme == "int8"
        raise RunError(
            f"Cannot export {recipe.scheme}: LiteRT cannot run this network so: "
            f"{str(error).partition(chr(10))[0]}. "
            + ("Use calibration=minmax without exclude, or " if is_int8 else "Use ")
            + "scheme=dynamic."
        ) from error
