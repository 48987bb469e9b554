"""What the stages will make of a network, found out before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from netopt_cli.contracts import ArchBuilder, Network, Planned, Preflight, Property, Stage


def plan(
    network: Network, stages: Mapping[str, Stage], build: Callable[[ArchBuilder], Network]
) -> dict[str, Network]:
    """Folds the plans of the stages over an untrained network.

    Args:
        build: Builds another network for the run's data.

    Returns:
        By stage, the network as it will be after it: right in shapes, zeros, properties and recipe,
        its weights without meaning. A stage that has no plan leaves the network as it is.

    Raises:
        InputError: A stage cannot work, or not in this place.
    """
    planned: dict[str, Network] = {}
    made_by: dict[Property, str] = {}
    for index, (name, stage) in enumerate(stages.items()):
        if isinstance(stage, Planned):
            network = stage.plan(Preflight(name, network, index == 0, build, made_by))
            made_by = {given: made_by.get(given, name) for given in network.properties}
        planned[name] = network
    return planned
