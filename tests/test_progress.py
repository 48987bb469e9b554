"""What is said of a training while it goes on."""

import io
import math
from pathlib import Path

from rich.console import Console

from netopt_cli.observer import Epoch
from netopt_cli.progress import LiveReporter, PlainReporter, Reporter, reporter_for


def epoch(metric: str = "accuracy", score: float = 0.8) -> Epoch:
    return Epoch("prune", 2, 3, 0.5, score, 0.6, 0.7, 0.001, 1.0, 1000.0, metric)


def said(reporter: Reporter, text: io.StringIO, *epochs: Epoch) -> str:
    reporter.training_starts("prune", 3, 10, epochs[0].metric)
    reporter.steps_done(5, 0.5, epochs[0].score)
    for each in epochs:
        reporter.epoch_ends(each)
    reporter.taken_up(epochs, "taken up")
    reporter.training_ends()
    return text.getvalue()


def plain(*epochs: Epoch) -> list[str]:
    text = io.StringIO()
    return said(PlainReporter(Console(file=text), 0.0), text, *epochs).splitlines()


def test_a_score_is_called_by_its_metric() -> None:
    assert plain(epoch()) == [
        "prune  step 5/10  loss 0.5000  accuracy 0.8000",
        "prune  epoch 2/3  loss 0.5000  accuracy 0.8000  val_loss 0.6000  val_accuracy 0.7000  "
        "1.0 s  1,000 samples/s",
        "prune  goes on after epoch 2/3  val_accuracy 0.7000",
    ]
    assert plain(epoch("ndcg_at_10", math.nan)) == [
        "prune  step 5/10  loss 0.5000",
        "prune  epoch 2/3  loss 0.5000  val_loss 0.6000  val_ndcg_at_10 0.7000  "
        "1.0 s  1,000 samples/s",
        "prune  goes on after epoch 2/3  val_ndcg_at_10 0.7000",
    ]


def test_a_live_bar_has_the_metric_too() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    shown = said(LiveReporter(console), text, epoch("rmse", 4.25))
    assert "loss 0.5000  rmse 4.2500" in shown and "val 0.7000" in shown


def test_the_log_has_it_when_nothing_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    said(reporter_for(Console(), quiet=True, log=log), io.StringIO(), epoch("rmse", 4.25))
    assert "rmse 4.2500  val_loss 0.6000  val_rmse 0.7000" in log.read_text()
