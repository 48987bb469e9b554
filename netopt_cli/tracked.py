"""What trackers tell of an epoch and of a row, and the packages that they need."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from typing import Any

from netopt_cli.errors import MissingExtraError
from netopt_cli.observer import Epoch


def curves(epoch: Epoch) -> dict[str, float]:
    """Returns column of history.csv -> its value in this epoch, of those that are curves."""
    columns = epoch.columns()
    names = ("loss", epoch.metric, "val_loss", f"val_{epoch.metric}", "learning_rate")
    return {name: columns[name] for name in names if not math.isnan(columns[name])}


def curves_of_stage(epoch: Epoch) -> dict[str, float]:
    """Returns `STAGE/CURVE` -> its value in this epoch."""
    return {f"{epoch.stage}/{name}": value for name, value in curves(epoch).items()}


def figures(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns `STAGE/ROLE/COLUMN` -> figure, for the columns of metrics.csv that have figures."""
    return {
        f"{row['stage']}/{row['role']}/{column}": float(value)
        for column, value in row.items()
        if column != "seed" and isinstance(value, int | float) and not isinstance(value, bool)
    }


def require_packages(feature: str, *packages: str) -> None:
    """Raises MissingExtraError when a package of the extra `tracking` is not installed."""
    if not all(map(importlib.util.find_spec, packages)):
        raise MissingExtraError(feature, "tracking")
