"""What a run would do, without training: the pipeline with predicted figures, and every problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import keras
import numpy as np
from omegaconf import DictConfig
from rich.table import Table

from netopt_cli.components import build, import_packages
from netopt_cli.contracts import ArchBuilder, Network, Stage
from netopt_cli.dataset import Dataset
from netopt_cli.errors import InputError, NetoptError
from netopt_cli.export.formats import FILES, Format, further
from netopt_cli.export.packed import pack
from netopt_cli.graph.kernels import kernels
from netopt_cli.measure.exports import contents_of, export_as
from netopt_cli.measure.macs import count_macs
from netopt_cli.measure.measurement import export_network, gzip_size
from netopt_cli.measure.segments import export_exits
from netopt_cli.networks import build_network
from netopt_cli.planning import outlooks, require_epochs
from netopt_cli.preparation import load_data
from netopt_cli.tables import bytes_text, count_text, fitted

BASELINE = "baseline"
CALIBRATION_SAMPLES = 8
"""Enough for an int8 file of the right size, which does not depend on the ranges."""

_LEFT_OUT = "cannot work; what follows is without it"

Made = TypeVar("Made")


@dataclass
class Forecast:
    """What can be told of the network after one stage; None where it cannot.

    Attributes:
        epochs: That the stage trains, without its control and what `notes` says.
        nonzero_params: `params` without the zeros that the stages make in the kernels.
        macs: Multiply-accumulates of one inference.
        scheme: Of the LiteRT file.
        size_bytes: Of the LiteRT file of the untrained network.
        size_gzip_bytes: In gzip, level 9.
        size_packed_bytes: Recoded by `export.packed`.
        further_bytes: Of the further formats.
    """

    stage: str
    epochs: int | None = None
    params: int | None = None
    nonzero_params: int | None = None
    macs: int | None = None
    scheme: str | None = None
    size_bytes: int | None = None
    size_gzip_bytes: int | None = None
    size_packed_bytes: int | None = None
    further_bytes: dict[Format, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Problem:
    """Why the run cannot work.

    Attributes:
        where: The section of the config: `arch`, `opt.prune`.
    """

    where: str
    reason: str


@dataclass
class Report:
    """Attributes:
    stages: The baseline, then each stage; empty when there is no network to begin with.
    problems: All that were found: those of a stage are found on the network before the stage
        that had a problem.
    notes: What holds for all of it.
    """

    stages: list[Forecast] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"status": "incompatible" if self.problems else "ok"}


def forecast(cfg: DictConfig, *, allow: tuple[str, ...]) -> Report:
    """Builds and checks what a run of `cfg` would, and predicts its figures.

    Nothing is trained, and nothing is left on the disk.

    Args:
        allow: Packages outside netopt and Keras that `_target_` may name.
    """
    keras.backend.clear_session()  # as a run does: names are bytes of the file
    keras.utils.set_random_seed(cfg.seed)
    report = Report()

    def attempt(where: str, make: Callable[[], Made]) -> Made | None:
        try:
            return make()
        except InputError as error:
            report.problems.append(Problem(where, str(error)))
            return None

    attempt("--allow", partial(import_packages, allow))
    target = attempt("target", partial(build, cfg.target, allow=allow, where="target"))
    settings = attempt("train", partial(build, cfg.train, allow=allow, where="train"))
    stages: dict[str, Stage] = {}
    for name in cfg.opt:
        where = f"opt.{name}"
        stage = attempt(where, partial(build, cfg.opt[name], allow=allow, where=where))
        if stage is not None:
            stages[name] = stage
    for name, node in cfg.get("tracking", {}).items():
        where = f"tracking.{name}"
        attempt(where, partial(build, node, allow=allow, where=where))
    arch = attempt("arch", partial(build, cfg.arch, allow=allow, where="arch", partial=True))
    data = attempt("data", partial(load_data, cfg, allow))
    if target is None or settings is None or arch is None or data is None:
        return report
    attempt("train", partial(require_epochs, stages, settings.epochs))

    def network_of(arch: ArchBuilder, classes: int | None = None) -> Network:
        return build_network(arch, data, classes)

    with target.strategy.scope():
        network = attempt("arch", lambda: network_of(arch))
        if network is None:
            return report
        _fill_zero_vectors(network.model)
        predict = _Prediction(report, data, further(cfg.get("export", ())), cfg.seed)
        predict(Forecast(BASELINE, settings.epochs), network, "arch")
        before = network
        for outlook in outlooks(network, stages, network_of, data):
            where = f"opt.{outlook.stage}"
            if outlook.problem is not None:
                report.problems.append(Problem(where, str(outlook.problem)))
                report.stages.append(Forecast(outlook.stage, notes=[_LEFT_OUT]))
                continue
            stage = stages[outlook.stage]
            found = Forecast(outlook.stage, _epochs(stage, "epochs", settings.epochs))
            if not outlook.is_planned:
                found.notes.append("cannot tell before the run: the figures are those before it")
            found.notes += _trainings_besides(stage, settings.epochs)
            given = sorted(outlook.network.properties - before.properties)
            if given:
                found.notes.append(f"later stages keep its {', '.join(given)}")
            predict(found, outlook.network, where)
            before = outlook.network
    for position, name in enumerate(cfg.opt, start=1):
        if name not in stages:
            report.stages.insert(position, Forecast(name, notes=[_LEFT_OUT]))
    report.notes.append(
        "Bytes are those of the untrained network, exported for real. Accuracy and latency cannot "
        "be predicted: the run measures them."
    )
    if cfg.control and any(found.epochs for found in report.stages[1:]):
        report.notes.append("control=true: each gain's control is trained as long besides.")
    return report


@dataclass(frozen=True)
class _Prediction:
    """Fills in the figures of a planned network and puts them on the report."""

    report: Report
    data: Dataset
    formats: tuple[Format, ...]
    seed: int

    def __call__(self, found: Forecast, network: Network, where: str) -> None:
        self.report.stages.append(found)
        found.params = network.model.count_params()
        zeros = sum(int(np.sum(v.numpy() == 0)) for v in kernels(network.model).values())
        found.nonzero_params = found.params - zeros
        samples = min(CALIBRATION_SAMPLES, network.recipe.calibration_samples)
        network = replace(network, recipe=replace(network.recipe, calibration_samples=samples))
        try:
            self._export(found, network)
        except NetoptError as error:
            self.report.problems.append(Problem(where, str(error)))

    def _export(self, found: Forecast, network: Network) -> None:
        if network.exits is not None:
            self._export_segments(found, network)
            return
        graph, content = export_network(network, self.data, self.seed)
        found.macs = count_macs(graph.traced.graph).total
        found.scheme = network.recipe.scheme
        found.size_bytes = len(content)
        found.size_gzip_bytes = gzip_size(content)
        found.size_packed_bytes = len(pack(content))
        for format_ in self.formats:
            export = export_as(format_, network, graph, self.data, self.seed)
            with TemporaryDirectory() as folder:
                path = Path(folder)
                path = path / FILES[format_] if Path(FILES[format_]).suffix else path
                export.write(path)
                found.further_bytes[format_] = sum(map(len, contents_of(path)))
            found.notes += export.notes

    def _export_segments(self, found: Forecast, network: Network) -> None:
        parts = export_exits(network, self.data, self.seed).segments
        found.scheme = network.recipe.scheme
        found.size_bytes = sum(len(part.content) for part in parts)
        found.size_gzip_bytes = sum(gzip_size(part.content) for part in parts)
        found.size_packed_bytes = sum(len(part.packed) for part in parts)
        counts = [count_macs(part.graph.traced.graph).total for part in parts]
        if None not in counts:
            found.macs = sum(count for count in counts if count is not None)
        found.notes.append(
            f"{len(parts)} segments; MACs are those of a sample that goes to the end"
        )


def _fill_zero_vectors(model: keras.Model) -> None:
    """Gives biases and shifts that start at zero a value, as training does: the converter leaves
    out those that add nothing, and the file would be too small."""
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if len(variable.shape) == 1 and not np.any(variable.numpy()):
            variable.assign(random.normal(scale=0.01, size=variable.shape))


def _epochs(stage: Stage, name: str, default: int) -> int:
    """The value of a stage's parameter: None is `train.epochs`; without it, it trains nothing."""
    value = getattr(stage, name, 0)
    return default if value is None else int(value)


def _trainings_besides(stage: Stage, default: int) -> Iterator[str]:
    """Those of a teacher and the like, in the parameters `…_epochs`."""
    if is_dataclass(stage):
        for parameter in fields(stage):
            if parameter.name.endswith("_epochs"):
                yield f"{parameter.name}: {_epochs(stage, parameter.name, default)}"


def table(report: Report, title: str, width: int) -> Table:
    """The stages for a console of `width` characters, without the columns that do not fit."""
    rows = report.stages
    columns = {
        "stage": [row.stage for row in rows],
        "epochs": [_text(row.epochs, str) for row in rows],
        "params": [_text(row.params, count_text) for row in rows],
        "nonzero": [_text(row.nonzero_params, count_text) for row in rows],
        "MACs": [_text(row.macs, count_text) for row in rows],
        "scheme": [row.scheme or "" for row in rows],
        "file": [_text(row.size_bytes, bytes_text) for row in rows],
        "gzip": [_text(row.size_gzip_bytes, bytes_text) for row in rows],
        "packed": [_text(row.size_packed_bytes, bytes_text) for row in rows],
    }
    for format_ in dict.fromkeys(name for row in rows for name in row.further_bytes):
        columns[format_] = [_text(row.further_bytes.get(format_), bytes_text) for row in rows]
    return fitted(
        columns,
        width,
        title=title,
        left=("stage", "scheme"),
        dispensable=("scheme", "packed", "params", "gzip"),
        more="more figures: --json",
        styles=[None if row.params is not None else "dim" for row in rows],
    )


def lines(report: Report) -> Iterator[str]:
    """The notes, of each stage and of the whole."""
    for row in report.stages:
        yield from (f"{row.stage}: {note}" for note in row.notes)
    yield from report.notes


def _text(value: int | None, text: Callable[[float], str]) -> str:
    return "unknown" if value is None else text(value)
