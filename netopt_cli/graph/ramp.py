"""What is done to a network bit by bit while it trains: quickly at first, then ever more slowly."""

from __future__ import annotations

import math
from collections.abc import Callable

from netopt_cli.contracts import Modifier
from netopt_cli.graph.masks import SoFar

_DRAWS = 20
"""How often a ramp acts: criteria that ask the data cost a pass each time."""


def ramp(until: float, act: Callable[[SoFar], None]) -> Modifier:
    """Returns what calls `act` along 1 - (1 - t / until)^3 (Zhu and Gupta, 2017) as training goes
    on; weights are kept once it has ended.

    Args:
        until: Part of the training at which all is done.
        act: Gets what is due: the whole -> the part of it that is due now.
    """
    memory = {"drawn_at": 0.0}

    def before_steps(step: int, total_steps: int) -> None:
        time = min(1.0, step / max(1.0, until * total_steps))
        time = math.floor(time * _DRAWS) / _DRAWS
        if time > memory["drawn_at"]:
            memory["drawn_at"] = time
            act(lambda whole: whole * (1.0 - (1.0 - time) ** 3))

    return Modifier("ramp", before_steps=before_steps, memory=memory, settles_at=until)
