"""The robustness of a run's networks, one row each: in the terminal and in robustness.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.table import Table

from netopt_cli.tables import fitted, means, row_name, texts

COLUMNS = (
    "stage",
    "role",
    "seed",
    "clean",
    "fgsm",
    "pgd",
    "corrupted",
    "network_clean",
    "network_fgsm",
    "network_pgd",
    "ece",
    "nll",
    "auroc_max_softmax",
    "auroc_energy",
    "epsilon",
    "steps",
    "step_size",
    "restarts",
    "samples",
    "out_of_distribution",
    "sound",
)
"""The columns of robustness.csv: see `measure.robustness.RobustnessMeasurement`."""

KEYS = ("stage", "role")
"""What tells the rows of a run apart."""

Row = dict[str, Any]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


_COLUMNS: dict[str, Callable[[Row], str]] = {
    "stage": row_name,
    "clean": lambda row: _percent(row["clean"]),
    "FGSM": lambda row: _percent(row["fgsm"]),
    "PGD": lambda row: _percent(row["pgd"]),
    "PGD, Keras": lambda row: _percent(row["network_pgd"]),
    "corrupted": lambda row: _percent(row["corrupted"]),
    "ECE": lambda row: f"{row['ece']:.4f}",
    "NLL": lambda row: f"{row['nll']:.4f}",
    "AUROC": lambda row: f"{row['auroc_max_softmax']:.4f}",
    "AUROC, energy": lambda row: f"{row['auroc_energy']:.4f}",
    "attacks": lambda row: "sound" if row["sound"] else "doubtful",
}
_DISPENSABLE = ("AUROC, energy", "PGD, Keras", "NLL", "AUROC", "FGSM")
"""What a narrow terminal does without, in this order."""


def terminal(rows: list[Row], width: int) -> Table:
    """The table for a console of `width` characters, without the columns that do not fit."""
    attack = means(rows[0])
    return fitted(
        texts(_COLUMNS, rows),
        width,
        title=f"robustness: ε = {attack['epsilon']:g}, {attack['steps']} steps",
        left=("stage", "attacks"),
        dispensable=_DISPENSABLE,
        more="more figures: robustness.md, robustness.csv",
        styles=["dim" if row["role"] == "control" else None for row in rows],
    )


def markdown(rows: list[Row]) -> str:
    columns = texts(_COLUMNS, rows)
    lines = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    row = means(rows[0])
    return (
        f"{table}\n\n"
        f"{row['samples']} test samples. Accuracies are those of the exported "
        "file; the samples were attacked on the Keras network, whose own accuracy under PGD stands "
        f"beside. FGSM is one step of ε = {row['epsilon']:g} of the range of the data; PGD "
        f"{row['steps']} steps of {row['step_size']:.4g}, {row['restarts']} random starts. "
        "`corrupted` is the mean over corruptions and severities, which record.json lists. ECE: 15 "
        f"intervals. AUROC: against foreign samples ({row['out_of_distribution']}), by the largest "
        "probability and by the energy. `doubtful` attacks failed a sanity check (the notes in "
        "record.json say which): their accuracies are no evidence of robustness.\n"
    )
