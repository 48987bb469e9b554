"""What is exported and measured of the networks of a run, and written to its record."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import keras
import numpy as np

from netopt_cli import bundle
from netopt_cli.contracts import Network
from netopt_cli.export.formats import FILES, Format
from netopt_cli.export.litert import FrozenGraph
from netopt_cli.measure.exports import export_as, measure_export, of_litert
from netopt_cli.measure.measurement import Measurement, export_network, measure
from netopt_cli.measure.robustness import RobustnessProbe
from netopt_cli.measure.runtime import LitertRunner
from netopt_cli.measure.segments import ExitFiles, export_exits, measure_exits
from netopt_cli.metrics import metric_named
from netopt_cli.side_effects import names_and_draws_kept
from netopt_cli.tables import Row
from netopt_cli.trainings import Trainer, Trainings

NOTABLE_LOSS = 0.02
"""Of the figure that counts, what a file may lose against its Keras network before it is said."""


class Measuring:
    """Measures the network of a stage: its file, and what was asked for besides."""

    def __init__(
        self,
        trainings: Trainings,
        *,
        formats: Sequence[Format] = (),
        robustness: RobustnessProbe | None = None,
    ) -> None:
        self._trainings = trainings
        self._data = trainings.data
        self._seed = trainings.seed
        self._target = trainings.target
        self._record = trainings.record
        self._reporter = trainings.reporter
        self._formats = formats
        self._robustness = robustness

    def __call__(
        self, network: Network, trainer: Trainer, *, stage: str, role: str, control: str | None
    ) -> Row:
        """Exports the network, measures the file and returns its row, which is on the record.

        A row that the record has already, of a run that was interrupted, is not measured again.
        Workers that are not the chief keep their model, and a row without figures.
        """
        row: Row = {"stage": stage, "role": role, "seed": self._seed, "control": control}
        row["metric"] = self._data.task.metric
        recorded = self._record.row_of(stage, role)
        if recorded is not None:
            return recorded
        with names_and_draws_kept():
            return self._measured(network, trainer, row)

    def _measured(self, network: Network, trainer: Trainer, row: Row) -> Row:
        stage, role = row["stage"], row["role"]
        label = trainer.label
        if role != "stage":
            self._record.save_model(label, network.model)
        self._record.stage_fact(label, "weights_sha256", _digest(network.model))
        if not self._target.is_chief:
            return row
        self._reporter.say(f"{trainer.name}: exporting and measuring")
        if network.exits is not None:
            if self._robustness is not None:
                trainer.note("robustness is measured of networks without early exits alone")
            return self._measure_exits(network, trainer, row)
        frozen, content = export_network(network, self._data, self._seed)
        file = self._record.save_file(label, content)
        self._record.save_file(label, bundle.described(self._data), bundle.NAME)
        measurement = measure(network, self._data, self._target.timing, file, frozen)
        self._record.save_file(label, measurement.packed, "model.packed")
        self._fill_in(row, measurement, trainer)
        if self._robustness is not None:
            self._measure_robustness(self._robustness, network, trainer, row, content)
        if self._formats and role != "control":
            self._measure_exports(network, trainer, stage, measurement, frozen)
        self._record.add_row(row)
        return row

    def variants(
        self, network: Network, trainer: Trainer, *, stage: str, control: str | None
    ) -> None:
        """Exports and measures what a stage has made besides its network."""
        for name, model in network.variants.items():
            label = f"{trainer.label}-{name.replace(' ', '_')}"
            part = Trainer(self._trainings, label=label, name=f"{stage}, {name}")
            part.trainable_params, part.seconds = trainer.trainable_params, trainer.seconds
            alone = replace(network, model=model, variants={})
            self(alone, part, stage=part.name, role="variant", control=control)

    def _measure_exits(self, network: Network, trainer: Trainer, row: Row) -> Row:
        """Exports the segments of a network with early exits, measures them together and returns
        the row."""
        export = export_exits(network, self._data, self._seed)
        files = ExitFiles(
            [
                self._record.save_file(trainer.label, part.content, f"segment_{number}.tflite")
                for number, part in enumerate(export.segments, start=1)
            ],
            self._record.save_file(trainer.label, export.whole.content, "without_exits.tflite"),
        )
        for number, part in enumerate(export.segments, start=1):
            self._record.save_file(trainer.label, part.packed, f"segment_{number}.packed")
        measurement, ways = measure_exits(network, export, files, self._data, self._target.timing)
        chosen = measurement.details
        trainer.note(
            f"thresholds from validation: {chosen['validation_accuracy']:.2%} right, "
            f"{chosen['validation_accuracy_final']:.2%} without leaving early, for "
            f"{chosen['validation_cost']:.1%} of the multiply-accumulates"
        )
        self._fill_in(row, measurement, trainer)
        self._record.add_exits([{"stage": row["stage"], "seed": self._seed} | way for way in ways])
        if self._formats:
            trainer.note(f"segments are LiteRT files alone, not {', '.join(self._formats)}")
        self._record.add_row(row)
        return row

    def _fill_in(self, row: Row, measurement: Measurement, trainer: Trainer) -> None:
        """Fills in the figures of a row, which goes on the record after all that belongs to it."""
        self._compare(measurement.details["parity"], trainer)
        figures = asdict(measurement)
        del figures["packed"]
        figures |= figures.pop("scores")
        self._record.stage_fact(trainer.label, "measurement", figures.pop("details"))
        row |= figures | {
            "trainable_params": trainer.trainable_params,
            "train_seconds": round(trainer.seconds, 3),
            "trained_by": "earlier run" if "taken over" in trainer.origins else "",
            "labels": self._trainings.labels,
        }

    def _measure_exports(
        self,
        network: Network,
        trainer: Trainer,
        stage: str,
        measured: Measurement,
        frozen: FrozenGraph,
    ) -> None:
        """Exports to the further formats too, and measures each beside the LiteRT file."""
        files = [of_litert(network, measured)]
        for format_ in self._formats:
            self._reporter.say(f"{trainer.name}: exporting and measuring {format_}")
            export = export_as(format_, network, frozen, self._data, self._seed)
            path = self._record.save_export(trainer.label, FILES[format_], export.write)
            files.append(measure_export(export, path, network, self._data, self._target.timing))
            for note in export.notes:
                trainer.note(note)
        metric = self._data.task.metric
        rows = [
            {"stage": stage, "seed": self._seed, "metric": metric, metric: figures.pop("score")}
            | figures
            for figures in map(asdict, files)
        ]
        self._record.add_exports(rows)

    def _measure_robustness(
        self,
        probe: RobustnessProbe,
        network: Network,
        trainer: Trainer,
        row: Row,
        file: bytes,
    ) -> None:
        self._reporter.say(f"{trainer.name}: measuring robustness")
        runner = LitertRunner(file, self._target.timing, os.cpu_count() or 1)
        figures = vars(probe(network, runner))
        for check in figures.pop("checks"):
            if not check.passed:
                trainer.note(
                    f"the attacks are doubtful, it does not hold that {check.name}: {check.found}. "
                    "That is a sign of gradient masking, and no robustness is shown"
                )
        self._record.stage_fact(trainer.label, "robustness", figures.pop("details"))
        self._record.add_robustness(
            {name: row[name] for name in ("stage", "role", "seed")} | figures
        )

    def _compare(self, parity: dict[str, Any], trainer: Trainer) -> None:
        if parity["is_rough"]:
            trainer.note(
                f"this network quantizes badly: logits of the file are off by up to "
                f"{parity['max_abs_rounded']:.3g}, where rounding explains "
                f"{parity['tolerance']:.3g}; they correlate by {parity['correlation']:.2f}"
            )
        task = self._data.task
        lost = task.rank(parity["keras_score"]) - task.rank(parity["file_score"])
        if lost > NOTABLE_LOSS:
            metric = metric_named(task.metric)
            trainer.note(
                f"the file does worse than the Keras network on {parity['samples']} validation "
                f"samples: {metric.title} {metric.text(parity['file_score'])} after "
                f"{metric.text(parity['keras_score'])}"
            )


def _digest(model: keras.Model) -> str:
    """SHA-256 of all weights: equal on two workers exactly when their networks are."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()
