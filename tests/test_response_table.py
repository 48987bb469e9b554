"""The tables of a scan, by the metric that counts."""

import io

from rich.console import Console

from netopt_cli import plots
from netopt_cli.metrics import metric_named
from netopt_cli.response_table import drop, markdown, severity, terminal


def rows(metric: str, uncut: float, *scores: float) -> list[dict]:
    """A layer cut at several levels."""
    return [
        {"technique": "prune", "layer": "dense/kernel", "level": 0.1 * n, "params": 10,
         "macs_share": 0.5, "loss": 1.0, metric: score, "metric": metric,
         "drop": drop(metric_named(metric), uncut, score)}
        for n, score in enumerate(scores, start=1)
    ]  # fmt: skip


def test_what_is_worse_counts_up_whichever_way_is_better() -> None:
    assert [row["drop"] for row in rows("rmse", 4.0, 3.0, 5.0)] == [-1.0, 1.0]
    assert [row["drop"] for row in rows("ndcg_at_10", 0.5, 0.25)] == [0.25]
    assert [severity(row) for row in rows("rmse", 4.0, 5.0)] == [0.25], "a part of the number"
    assert [severity(row) for row in rows("ndcg_at_10", 0.5, 0.25)] == [0.5]
    assert [severity(row) for row in rows("eer", 0.25, 0.5)] == [0.25], "points of a share"


def test_tables_say_what_is_lost() -> None:
    found = rows("rmse", 4.0, 4.01, 5.5)
    text = markdown(found, {"loss": 0.5, "rmse": 4.0, "samples": 20})
    assert "as it is: RMSE 4.0000, loss 0.5000 nats on 20" in text
    assert "## prune: RMSE gained, by share of weights" in text and "| 0.0100 | 1.5000 |" in text
    console = Console(width=100, file=io.StringIO())
    for table in terminal(found, 100):
        console.print(table)
    assert "prune: RMSE gained" in console.file.getvalue()
    share = rows("f1_macro", 0.9, 0.85)
    text = markdown(share, {"loss": 0.5, "f1_macro": 0.9, "samples": 20})
    assert "macro F1 90.00 %" in text and "points of macro F1 lost" in text and "| 5.00 |" in text


def test_the_map_says_it_too() -> None:
    figure = plots.response_map(rows("rmse", 4.0, 4.01, 5.5)).decode()
    assert "RMSE gained, %" in figure and ">1.5000</text>" in figure
