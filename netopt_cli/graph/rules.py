"""Which rule tells how a layer's units hang together.

Looked for in this order, always for the layer's own class, never for a base class, since a subclass
may do anything:

1. a method `netopt_channel_rule(self, call)` of the layer: the way for a layer that is loaded from
   a file or named by a `_target_`, as nothing else has to be imported;
2. a rule given to `register_rule`;
3. the rules that come with netopt.

`netopt_cli.graph.rule_call` shows how a rule is written.
"""

from __future__ import annotations

from typing import Any

import keras

from netopt_cli.graph import (
    rules_attention,
    rules_dense,
    rules_mixing,
    rules_operations,
    rules_pointwise,
    rules_recurrent,
    rules_shape,
)
from netopt_cli.graph.rule_call import Rule

HOOK = "netopt_channel_rule"


def register_rule(layer_class: type, rule: Rule) -> None:
    """Says how the units of a layer class hang together; replaces a rule that there was."""
    _registered[layer_class] = rule


def rule_of(layer: Any) -> Rule | None:
    """Returns the rule of a layer or bare operation, or None."""
    own = getattr(layer, HOOK, None)
    return own or _registered.get(type(layer)) or _OWN.get(type(layer)) or _by_name(layer)


def _by_name(layer: Any) -> Rule | None:
    """Looks up what Keras has no public class for."""
    kind = type(layer)
    if not kind.__module__.startswith("keras."):
        return None
    if isinstance(layer, keras.Layer):
        named = rules_pointwise.NAMED.get(kind.__name__)
        is_preprocessing = ".preprocessing." in kind.__module__
        return named or (rules_pointwise.of_data if is_preprocessing else None)
    return rules_operations.RULES.get(kind.__name__)


_OWN: dict[type, Rule] = {
    **rules_attention.RULES,
    **rules_dense.RULES,
    **rules_mixing.RULES,
    **rules_pointwise.RULES,
    **rules_recurrent.RULES,
    **rules_shape.RULES,
    keras.layers.TimeDistributed: rules_recurrent.time_distributed(rule_of),
}
_registered: dict[type, Rule] = {}
