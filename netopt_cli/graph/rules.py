"""Which rule tells how a layer's units hang together.

Looked for in this order, always for the layer's own class, never for a base class, since a subclass
may do anything:

1. a method `netopt_channel_rule(self, call)` of the layer: the way for a layer that is loaded from
   a file or named by a `_target_`, as nothing else has to be imported;
2. a rule given to `register_rule`;
3. the rules that come with netopt.

`netopt_cli.graph.call` shows how a rule is written.
"""

from __future__ import annotations

from typing import Any

from netopt_cli.graph import rules_dense, rules_pointwise, rules_shape
from netopt_cli.graph.call import Rule

HOOK = "netopt_channel_rule"

_OWN: dict[type, Rule] = {
    **rules_dense.RULES,
    **rules_pointwise.RULES,
    **rules_shape.RULES,
}
_registered: dict[type, Rule] = {}


def register_rule(layer_class: type, rule: Rule) -> None:
    """Says how the units of a layer class hang together; replaces a rule that there was."""
    _registered[layer_class] = rule


def rule_of(layer: Any) -> Rule | None:
    """Returns the rule of a layer or bare operation, or None."""
    hook = getattr(layer, HOOK, None)
    return hook or _registered.get(type(layer)) or _OWN.get(type(layer))
