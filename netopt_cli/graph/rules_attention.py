"""Rules of attention: heads are units."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from netopt_cli.graph.labels import Ids, Labels
from netopt_cli.graph.rule_call import Call, NoRule, Rule, consumes, follows, produces


def multi_head_attention(call: Call) -> list[Labels]:
    layer = call.layer
    if layer._output_shape is not None and len(layer._output_shape) > 1:
        raise NoRule("its output_shape has several axes")
    heads = call.units(layer.num_heads, "heads")
    call.resize("num_heads", heads)
    return _attention(call, heads, heads)


def grouped_query_attention(call: Call) -> list[Labels]:
    """A unit is a key and value head with the query heads that share it."""
    layer = call.layer
    shared = call.units(layer.num_key_value_heads, "heads")
    heads = np.repeat(shared, layer.num_repeats)
    call.resize("num_key_value_heads", shared)
    call.resize("num_query_heads", heads)
    return _attention(call, heads, shared)


def _attention(call: Call, heads: Ids, shared: Ids) -> list[Labels]:
    layer = call.layer
    named = dict(zip(("query", "value", "key"), call.args, strict=False)) | call.kwargs
    query, value = named["query"], named["value"]
    key = named.get("key")
    key = value if key is None else key
    # (features, heads, size of a head)
    for name, x, ids in (
        ("query", query, heads),
        ("key", key, shared),
        ("value", value, shared),
        ("gate", query, heads),
    ):
        dense = getattr(layer, f"_{name}_dense", None)
        if dense is not None:
            call.weight(dense.kernel, consumes(_features(call, x)), produces(ids), None)
            if dense.bias is not None:
                call.weight(dense.bias, produces(ids), None)
    dense = layer._output_dense
    if isinstance(layer, keras.layers.MultiHeadAttention):
        out = call.units(dense.kernel.shape[-1])
        call.resize("output_shape", [out])
    else:
        out = query[-1]  # GroupedQueryAttention gives the features of its query.
    call.weight(dense.kernel, consumes(heads), None, produces(out))
    if dense.bias is not None:
        call.weight(dense.bias, produces(out))
    output, *scores = [Labels.fixed(shape) for shape in call.shapes]
    # Scores: (batch, heads, queries, keys)
    return [output.with_axis(-1, out), *[one.with_axis(1, heads) for one in scores]]


def _features(call: Call, x: Labels) -> Ids:
    for axis in x.free_axes:
        if axis != x.rank - 1:
            call.protect(x[axis], f"'{call.layer.name}' attends along their axis")
    return x[-1]


def attention(call: Call) -> list[Labels]:
    """Attention and AdditiveAttention, called with [query, value] or [query, value, key]."""
    layer = call.layer
    query, value, *rest = call.inputs
    key = rest[0] if rest else value
    for one in (query, value, key):
        _features(call, one)
    call.merge(query[-1], key[-1])
    if isinstance(layer, keras.layers.AdditiveAttention) and layer.scale is not None:
        call.weight(layer.scale, follows(query[-1]))
    else:
        call.over_kept = bool(query[-1].any() or key[-1].any())
    output, *scores = [Labels.fixed(shape) for shape in call.shapes]
    return [output.with_axis(-1, value[-1]), *scores]


RULES: dict[Any, Rule] = {
    keras.layers.AdditiveAttention: attention,
    keras.layers.Attention: attention,
    keras.layers.GroupQueryAttention: grouped_query_attention,
    keras.layers.MultiHeadAttention: multi_head_attention,
}
