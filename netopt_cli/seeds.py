"""The seeds of a run: `seeds=5` and `seeds=[0,3,7]`, or the one of `seed=`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from netopt_cli.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

MOST = 1000
"""Runs of one command: more are a `seed=` that was meant, or a mistake."""

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Requested = (
    Annotated[int, Field(ge=1, le=MOST)]
    | Annotated[list[Seed], Field(min_length=1, max_length=MOST)]
    | None
)
"""The value of `seeds` in a config: how many, or which; null for the one of `seed`."""


def listed(requested: int | Sequence[int] | None) -> tuple[int, ...]:
    """The seeds that a value of `seeds` asks for; none for the one of `seed`.

    Raises:
        ConfigError: A seed is there twice.
    """
    if requested is None:
        return ()
    if isinstance(requested, int):
        return tuple(range(requested))
    found = tuple(requested)
    twice = next((seed for seed in found if found.count(seed) > 1), None)
    if twice is not None:
        raise ConfigError(f"seeds must be different. Received: {twice} twice in {list(found)}")
    return found


def alone(config: DictConfig, seed: int) -> DictConfig:
    """The config of the run of one of several seeds: that of `seed=…` alone."""
    from omegaconf import open_dict

    found = config.copy()
    with open_dict(found):
        found.seed, found.seeds = seed, None
    return found
