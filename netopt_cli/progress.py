"""Showing a training's progress: a live bar in a terminal, a plain line an epoch elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from netopt_cli.metrics import ACCURACY
from netopt_cli.observer import Epoch, Observer


class Reporter(Observer, Protocol):
    """An observer that can also say things between trainings."""

    def say(self, message: str) -> None: ...


_SHORT = {ACCURACY: "acc"}
_ORIGINS = {"taken up": "goes on after", "taken over": "taken over from an earlier run:"}


class LiveReporter:
    """A bar with the time left, the loss and the score."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None

    def say(self, message: str) -> None:
        self._console.print(message, highlight=False, markup=False)

    def training_starts(self, stage: str, epochs: int, steps: int, metric: str = ACCURACY) -> None:
        self._metric = metric
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task(stage, total=steps, figures="compiling")
        self._progress.start()

    def steps_done(self, step: int, loss: float, score: float) -> None:
        if self._progress is not None:
            figures = f"loss {_loss(loss)}{_score(_SHORT.get(self._metric, self._metric), score)}"
            self._progress.update(self._task, completed=step, figures=figures)

    def epoch_ends(self, epoch: Epoch) -> None:
        if self._progress is not None:
            self._progress.console.print(_short_line(epoch), highlight=False, markup=False)

    def training_ends(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def taken_up(self, epochs: Sequence[Epoch], origin: str) -> None:
        if self._progress is not None:
            self._progress.console.print(_taken_up(epochs, origin), highlight=False, markup=False)


class PlainReporter:
    """One line an epoch; a training of many seconds an epoch also tells how far it is."""

    def __init__(self, console: Console, every_seconds: float = 30.0) -> None:
        self._console = console
        self._every_seconds = every_seconds

    def say(self, message: str) -> None:
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    def training_starts(self, stage: str, epochs: int, steps: int, metric: str = ACCURACY) -> None:
        self._stage, self._steps, self._metric = stage, steps, metric
        self._told = time.monotonic()

    def steps_done(self, step: int, loss: float, score: float) -> None:
        if time.monotonic() - self._told >= self._every_seconds:
            self.say(
                f"{self._stage}  step {step}/{self._steps}  loss {_loss(loss)}"
                f"{_score(self._metric, score)}"
            )
            self._told = time.monotonic()

    def epoch_ends(self, epoch: Epoch) -> None:
        self.say(_line(epoch))
        self._told = time.monotonic()

    def training_ends(self) -> None:
        pass

    def taken_up(self, epochs: Sequence[Epoch], origin: str) -> None:
        self.say(_taken_up(epochs, origin))


class SilentReporter:
    """Says nothing (`--quiet`)."""

    def say(self, message: str) -> None:
        pass

    def training_starts(self, stage: str, epochs: int, steps: int, metric: str = ACCURACY) -> None:
        pass

    def steps_done(self, step: int, loss: float, score: float) -> None:
        pass

    def epoch_ends(self, epoch: Epoch) -> None:
        pass

    def training_ends(self) -> None:
        pass

    def taken_up(self, epochs: Sequence[Epoch], origin: str) -> None:
        pass


class LoggedReporter:
    """Another reporter, whose words also go to the log of the run."""

    def __init__(self, reporter: Reporter, log: Path) -> None:
        self._reporter = reporter
        self._log = log
        self.training_starts = reporter.training_starts
        self.steps_done = reporter.steps_done
        self.training_ends = reporter.training_ends

    def say(self, message: str) -> None:
        self._write(message)
        self._reporter.say(message)

    def epoch_ends(self, epoch: Epoch) -> None:
        self._write(_line(epoch))
        self._reporter.epoch_ends(epoch)

    def taken_up(self, epochs: Sequence[Epoch], origin: str) -> None:
        self._write(_taken_up(epochs, origin))
        self._reporter.taken_up(epochs, origin)

    def _write(self, line: str) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now():%H:%M:%S} {line}\n")


def reporter_for(console: Console, *, quiet: bool, log: Path) -> Reporter:
    """The reporter for a console; everything that is said is in `log` too, also when quiet."""
    shown: Reporter
    if quiet:
        shown = SilentReporter()
    else:
        shown = LiveReporter(console) if console.is_terminal else PlainReporter(console)
    return LoggedReporter(shown, log)


def _line(epoch: Epoch) -> str:
    return (
        f"{epoch.stage}  epoch {epoch.epoch}/{epoch.epochs}  loss {_loss(epoch.loss)}"
        f"{_score(epoch.metric, epoch.score)}  val_loss {_loss(epoch.val_loss)}"
        f"{_score(f'val_{epoch.metric}', epoch.val_score)}  {epoch.seconds:.1f} s  "
        f"{epoch.samples_per_second:,.0f} samples/s"
    )


def _short_line(epoch: Epoch) -> str:
    return (
        f"{epoch.stage} {epoch.epoch}/{epoch.epochs}  loss {_loss(epoch.loss)}"
        f"{_score(epoch.metric, epoch.score)}{_score('val', epoch.val_score)}  "
        f"{epoch.seconds:.1f} s"
    )


def _taken_up(epochs: Sequence[Epoch], origin: str) -> str:
    last = epochs[-1]
    return (
        f"{last.stage}  {_ORIGINS[origin]} epoch {last.epoch}/{last.epochs}"
        f"{_score(f'val_{last.metric}', last.val_score)}"
    )


def _score(name: str, value: float) -> str:
    """Nothing where a training has no score."""
    return "" if math.isnan(value) else f"  {name} {_loss(value)}"


def _loss(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.4g}"
