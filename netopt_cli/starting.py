"""Where the training of a stage starts: from new weights, or from those there are."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.errors import InputError

Start = Literal["auto", "scratch", "current"]
"""`auto` is `scratch` for the first stage that trains, `current` for the others."""


def started(network: Network, context: Context, start: Start) -> tuple[Network, bool]:
    """Returns the network to train, and whether its weights are new."""
    is_new = start == "scratch" or (start == "auto" and context.is_first)
    return (replace(network, model=context.fresh().model) if is_new else network), is_new


def refuse_late_scratch(preflight: Preflight, start: Start) -> None:
    """Raises InputError where new weights would throw away what earlier stages made."""
    if start == "scratch" and not preflight.is_first:
        key = f"opt.{preflight.stage}.start"
        raise InputError(
            f"{key}=scratch would throw away what the stages before it made: put it first, or use "
            f"{key}=current"
        )
