"""An encoder of texts that is trained already, such as BERT (Devlin et al., 2019), with a new head.

The user's own file or a preset of KerasHub. Its vocabulary comes with it: `data.text.tokenizer`.
"""

from __future__ import annotations

from typing import Any, Literal

import keras

from netopt_cli import blocks, token_blocks
from netopt_cli.errors import ArchError, MissingExtraError
from netopt_cli.graph.rebuild import as_functional, layers, rebuild
from netopt_cli.inputs import VALUES, Inputs
from netopt_cli.loaded_network import first_line, load_network

_INPUTS = ("token_ids", "padding_mask", "segment_ids")
"""As KerasHub names them; a file with one input takes the tokens, whatever its name."""


def build(
    shape: tuple[int, ...],
    classes: int,
    *,
    inputs: Inputs = VALUES,
    path: str | None = None,
    preset: str | None = None,
    pooling: Literal["mean", "first"] = "mean",
    frozen: bool = False,
    dropout: blocks.Rate = 0.1,
) -> keras.Model:
    """Builds the encoder, the mean of its steps or the first one, and the logits.

    Args:
        shape: (length,).
        classes: Number of logits.
        inputs: Of a text.
        path: A `.keras` or legacy `.h5` file, loaded in safe mode, of a network from tokens, int32
            (batch, length), to (batch, length, width) or (batch, width); it may have the inputs
            `padding_mask` and `segment_ids` too. Classes of KerasHub need `--allow keras_hub`.
        preset: Of `keras_hub.models.Backbone`: a name, which is downloaded, or a folder.
        pooling: `mean` over the tokens, or the `first` step, which is that of [CLS] in BERT.
        frozen: Whether the encoder keeps its weights, and the head alone is trained.
        dropout: Rate before the logits.

    Returns:
        A model from tokens, int32 (batch, length), to logits (batch, classes).

    Raises:
        ArchError: Not exactly one of `path` and `preset` is given, it cannot be loaded, or it is no
            encoder of such texts.
        MissingExtraError: A preset without the extra `keras_hub`.
    """
    if (path is None) == (preset is None):
        raise ArchError(
            "text_encoder needs exactly one of arch.path (a .keras or .h5 file) and arch.preset "
            f"(of KerasHub). Received: path={path}, preset={preset}"
        )
    field = token_blocks.text_field(inputs, "text_encoder")
    encoder = load_network(path, shape) if path is not None else _preset(str(preset))
    encoder = _for_length(as_functional(encoder), shape[0], field.vocabulary)
    encoder.trainable = not frozen
    tokens = keras.Input(shape, dtype="int32", name="input")
    present = token_blocks.present(tokens)
    x = _steps(encoder(_arguments(encoder, tokens, present)), shape[0])
    if len(x.shape) == 3:
        x = x[:, 0] if pooling == "first" else token_blocks.mean_of_present(x, present)
    x = blocks.drop(x, dropout, name="dropout")
    return keras.Model(tokens, blocks.logits(x, classes), name="text_encoder")


def _preset(name: str) -> keras.Model:
    try:
        import keras_hub
    except ModuleNotFoundError as error:
        raise MissingExtraError("arch.preset", "keras_hub") from error
    try:
        return keras_hub.models.Backbone.from_preset(name)
    except Exception as error:  # Of the stores it downloads from, each has classes of its own.
        raise ArchError(
            f"arch.preset cannot be loaded. Received: preset={name} ({first_line(error)}). It must "
            "be the name of a preset of KerasHub, which a network is needed for, or a folder"
        ) from error


def _for_length(graph: keras.Model, length: int, vocabulary: int) -> keras.Model:
    """The encoder for texts of one length.

    Raises:
        ArchError: It has other inputs than tokens, or too few rows for the vocabulary.
    """
    names = [tensor.name for tensor in graph.inputs]
    if len(names) > 1 and not set(names) <= set(_INPUTS):
        raise ArchError(
            f"An encoder of texts has one input, or some of {', '.join(_INPUTS)}. "
            f"Received: {', '.join(names)} of model '{graph.name}'"
        )
    for layer in layers(graph):
        if isinstance(layer, keras.layers.Embedding) and _reads_tokens(layer, graph):
            rows = layer.input_dim
            if rows < vocabulary:
                raise ArchError(
                    f"The encoder knows {rows:,} tokens and the data has {vocabulary:,}. Give the "
                    "vocabulary that it was trained with, data.text.tokenizer=tokenizer.json, or "
                    f"lower data.text.vocabulary to {rows}"
                )
    structure = graph.input
    new_inputs = keras.tree.map_structure(
        lambda old: keras.Input((length,), dtype=old.dtype, name=old.name), structure
    )
    try:
        rebuilt, unfit = rebuild(graph, inputs=new_inputs)
    except ValueError as error:
        raise ArchError(
            f"Model '{graph.name}' cannot be built for {length} tokens: {first_line(error)}"
        ) from error
    if unfit:
        raise ArchError(
            f"Model '{graph.name}' was made for another length than {length} tokens: the weights "
            f"of '{unfit[0]}' depend on it. Set data.text.length"
        )
    return rebuilt


def _reads_tokens(layer: keras.layers.Embedding, graph: keras.Model) -> bool:
    """Whether it is the inputs' numbers of tokens that the layer looks up."""
    tokens = next((x for x in graph.inputs if x.name == _INPUTS[0]), graph.inputs[0])
    return any(x is tokens for node in layer._inbound_nodes for x in node.input_tensors)


def _arguments(encoder: keras.Model, tokens: keras.KerasTensor, present: keras.KerasTensor) -> Any:
    mask = keras.ops.cast(present[..., 0], "int32")
    by_name = {"token_ids": tokens, "padding_mask": mask, "segment_ids": 0 * tokens}
    if len(encoder.inputs) == 1:
        return keras.tree.map_structure(lambda _: tokens, encoder.input)
    return keras.tree.map_structure(lambda old: by_name[old.name], encoder.input)


def _steps(outputs: Any, length: int) -> keras.KerasTensor:
    """What the logits are computed from: (batch, length, width) if it is there, or (batch, width).

    Raises:
        ArchError: The network has neither.
    """
    found = keras.tree.flatten(outputs)
    for rank in (3, 2):
        for tensor in found:
            if len(tensor.shape) == rank and (rank == 2 or tensor.shape[1] == length):
                return tensor
    raise ArchError(
        "An encoder of texts gives (batch, length, width) or (batch, width). "
        f"Received: {[tuple(tensor.shape) for tensor in found]}"
    )
