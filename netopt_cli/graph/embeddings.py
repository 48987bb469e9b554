"""The embeddings of a network: where they are, and how often each of their rows is looked up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras
import numpy as np

from netopt_cli.graph.naming import matches, require_matches
from netopt_cli.graph.rebuild import as_functional, layers


def chosen_embeddings(
    model: keras.Model, exclude: Sequence[str], *, where: str
) -> list[keras.layers.Embedding]:
    """Returns the embeddings of a model and of those nested in it, each once, without those whose
    names match `exclude`.

    Args:
        where: The key of `exclude` in the config, for the message.

    Raises:
        InputError: A pattern matches none.
    """
    found = {id(one): one for one in layers(model) if type(one) is keras.layers.Embedding}
    require_matches([one.name for one in found.values()], exclude, where=where)
    return [one for one in found.values() if not matches(one.name, exclude)]


def look_ups(
    model: keras.Model, embedding: keras.layers.Embedding, batches: Iterable[np.ndarray]
) -> np.ndarray | None:
    """Returns int64 (rows,): how often each row is looked up; None for an embedding of a nested
    model.

    Args:
        batches: (n, *shape), as the model takes them.
    """
    graph = as_functional(model)
    nodes = [node for depth in graph._nodes_by_depth.values() for node in depth]
    ids = [node.input_tensors[0] for node in nodes if node.operation is embedding]
    if not ids:
        return None
    counts = np.zeros(embedding.input_dim, np.int64)
    tap = keras.Model(graph.inputs[0], ids)
    for x in batches:
        for found in keras.tree.flatten(tap(x, training=False)):
            flat = keras.ops.convert_to_numpy(found).astype(np.int64).reshape(-1)
            counts += np.bincount(flat, minlength=len(counts))
    return counts
