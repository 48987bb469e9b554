"""Folds the stages over the network, measures after each, and trains every gain's control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from netopt_cli.contracts import Network, Stage
from netopt_cli.measuring import Measuring
from netopt_cli.tables import Row, row_name
from netopt_cli.trainings import FitCall, Trainer, Trainings

BASELINE = "baseline"

_Budget = tuple[FitCall, ...]
"""The trainings since the last start from new weights: what makes two plain networks equal."""


class Pipeline:
    """The stages of a run."""

    def __init__(
        self,
        stages: Mapping[str, Stage],
        trainings: Trainings,
        measure: Measuring,
        *,
        control: bool,
        lineages: Mapping[str, str],
    ) -> None:
        """Args: lineages: The settings of each stage and of those before it, as text."""
        self._lineages = lineages
        self._stages = stages
        self._trainings = trainings
        self._measure = measure
        self._control = control
        self._plain: dict[_Budget, tuple[str, list[np.ndarray]]] = {}

    def run(self, network: Network) -> list[Row]:
        """Trains the baseline from `network`, applies every stage and returns the rows.

        Raises:
            NetoptError: A training or a measurement failed; the record has the rows before it.
        """
        with self._trainings.target.strategy.scope():
            trainer = Trainer(self._trainings, label=f"0-{BASELINE}", name=BASELINE)
            if self._trainings.settings.epochs:
                network = trainer.fit(network, epochs=self._trainings.settings.epochs, restart=True)
            else:
                trainer.note("not trained (train.epochs=0): the baseline is the network as it is")
            self._measure(network, trainer, stage=BASELINE, role="baseline", control=None)
            budget = tuple(trainer.calls)
            is_first = True
            self._plain[budget] = (BASELINE, network.model.get_weights())
            for index, (name, stage) in enumerate(self._stages.items(), start=1):
                self._trainings.reporter.say(f"stage {index} of {len(self._stages)}: {name}")
                trainer = Trainer(
                    self._trainings,
                    label=f"{index}-{name}",
                    name=name,
                    is_first=is_first,
                    lineage=self._lineages[name],
                )
                before = network
                network = _current(stage(network, trainer), before, trainer)
                self._trainings.record.save_model(trainer.label, network.model)
                budget = _add(budget, trainer.calls)
                is_first = is_first and not trainer.calls
                control = self._control_of(budget, index, name) if self._control else None
                self._measure.variants(network, trainer, stage=name, control=control)
                self._measure(network, trainer, stage=name, role="stage", control=control)
        return self._trainings.record.rows

    def _control_of(self, budget: _Budget, index: int, stage: str) -> str:
        """Returns the name of the row of the plain network that was trained as long.

        Where there is none, its last training is done now, on a copy of the plain network before
        it: the baseline itself, as a rule.
        """
        if budget not in self._plain:
            trainer = Trainer(
                self._trainings, label=f"{index}-{stage}-control", name=f"{stage} control"
            )
            network = self._trainings.fresh()
            known = max((n for n in range(len(budget)) if budget[:n] in self._plain), default=0)
            if known:
                network.model.set_weights(self._plain[budget[:known]][1])
            for call in budget[known:]:
                trainer.repeat(network, call)
            row = self._measure(network, trainer, stage=stage, role="control", control=BASELINE)
            self._plain[budget] = (row_name(row), network.model.get_weights())
        return self._plain[budget][0]


def _current(network: Network, before: Network, trainer: Trainer) -> Network:
    """The network without variants that no longer belong to it."""
    is_changed = bool(trainer.calls) or network.model is not before.model
    if network.variants and network.variants is before.variants and is_changed:
        trainer.note(f"goes on with the network alone, not with its {', '.join(before.variants)}")
        return replace(network, variants={})
    return network


def _add(budget: _Budget, calls: Sequence[FitCall]) -> _Budget:
    """The budget after more trainings: one from new weights makes the earlier ones irrelevant."""
    for call in calls:
        budget = (call,) if call.restart else (*budget, call)
    return budget
