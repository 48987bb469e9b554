"""Rows of runs that were never made, for tests of what several seeds add up to."""

from netopt_cli.tables import COLUMNS, Row


def row(stage: str, role: str, seed: int, accuracy: float, control: str | None) -> Row:
    figures = dict.fromkeys(COLUMNS, 1000)
    return figures | {
        "stage": stage, "role": role, "seed": seed, "accuracy": accuracy, "loss": 1 - accuracy,
        "sparsity": 0.8 if role == "stage" else 0.0, "control": control, "macs": None,
        "metric": "accuracy",
        "size_packed_bytes": 200 if role == "stage" else 1000,
    }  # fmt: skip


def errors(seed: int, *, gain: float = 0.0) -> list[Row]:
    """A run of prune on numbers: an RMSE, and so much of it less than its control's."""
    found = rows(seed, gain=gain)
    for each in found:
        each |= {"metric": "rmse", "rmse": 10 * (1 - each.pop("accuracy"))}
    return found


def rows(seed: int, *, gain: float = 0.0) -> list[Row]:
    """A run of prune: its stage is as accurate as its control but for `gain` and a little noise."""
    noise = 0.001 * (seed % 3)
    base = 0.9 + 0.01 * seed
    return [
        row("baseline", "baseline", seed, base, None),
        row("prune", "control", seed, base + 0.01 + noise, "baseline"),
        row("prune", "stage", seed, base + 0.01 + gain, "prune control"),
    ]
