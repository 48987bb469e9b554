"""What the stages will make of a network, found out before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from netopt_cli.contracts import (
    Network,
    NetworkBuilder,
    Planned,
    Preflight,
    Property,
    Selective,
    Stage,
)
from netopt_cli.dataset import Dataset
from netopt_cli.errors import ConfigError, InputError


@dataclass(frozen=True)
class Outlook:
    """What will come of one stage.

    Attributes:
        network: As it will be after the stage: right in shapes, zeros, properties and recipe, its
            weights without meaning. A stage without a plan, or with a problem, leaves it as it was.
        is_planned: Whether the stage can tell.
        problem: Why it cannot work there.
    """

    stage: str
    network: Network
    is_planned: bool
    problem: InputError | None = None


def plan(
    network: Network,
    stages: Mapping[str, Stage],
    build: NetworkBuilder,
    data: Dataset,
) -> dict[str, Network]:
    """Folds the plans of the stages over an untrained network.

    Args:
        build: Builds another network for the run's data.

    Returns:
        By stage, the network as it will be after it, see `Outlook`.

    Raises:
        InputError: A stage cannot work, or not in this place.
    """
    planned: dict[str, Network] = {}
    for outlook in outlooks(network, stages, build, data):
        if outlook.problem is not None:
            raise outlook.problem
        planned[outlook.stage] = outlook.network
    return planned


def require_epochs(stages: Mapping[str, Stage], epochs: int) -> None:
    """Refuses a stage that would train for `train.epochs`, when these are 0.

    Raises:
        ConfigError: Naming the key to set.
    """
    for name, stage in stages.items():
        if epochs == 0 and getattr(stage, "epochs", 0) is None:
            raise ConfigError(
                f"opt.{name}.epochs=null is train.epochs, and train.epochs=0 trains nothing: "
                f"set opt.{name}.epochs"
            )


def outlooks(
    network: Network,
    stages: Mapping[str, Stage],
    build: NetworkBuilder,
    data: Dataset,
) -> Iterator[Outlook]:
    """Yields what will come of each stage. After one that cannot work it goes on with the network
    as it was, so that every problem is found; `plan` stops at the first."""
    made_by: dict[Property, str] = {}
    for index, (name, stage) in enumerate(stages.items()):
        reason = stage.unsuited(data) if isinstance(stage, Selective) else None
        if reason is not None:
            problem = InputError(f"opt={name} cannot work here: {reason}")
            yield Outlook(name, network, is_planned=False, problem=problem)
            continue
        if not isinstance(stage, Planned):
            yield Outlook(name, network, is_planned=False)
            continue
        try:
            unlabeled = data.unlabeled_count
            network = stage.plan(Preflight(name, network, index == 0, build, made_by, unlabeled))
        except InputError as error:
            yield Outlook(name, network, is_planned=True, problem=error)
            continue
        made_by = {given: made_by.get(given, name) for given in network.properties}
        yield Outlook(name, network, is_planned=True)
