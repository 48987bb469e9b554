"""Figures of a run, as SVG. Matplotlib is imported when one is drawn."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from netopt_cli import response_table
from netopt_cli.metrics import metric_named, metric_of

_CELL = (0.62, 0.3)  # Inches.
_LEAST_SCALE = 5.0  # Points or per cent that get the darkest colour where no layer loses more.


def response_map(rows: list[dict[str, Any]]) -> bytes:
    """Draws what is lost at each layer (in the order of `rows`) and level, a map a technique; the
    colour of a plain number goes by its part of what the network had.

    Args:
        rows: As in sensitivity.csv, at least one.
    """
    import matplotlib as mpl
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    maps = response_table.by_technique(rows)
    columns = [len(next(iter(layers.values()))) for layers in maps.values()]
    name = max(len(layer) for layers in maps.values() for layer in layers)
    width = sum(columns) * _CELL[0] + len(maps) * (0.4 + 0.085 * name) + 1
    height = max(map(len, maps.values())) * _CELL[1] + 1.1
    metric = metric_named(metric_of(rows))
    severe = {
        technique: np.array(
            [[100 * response_table.severity(row) for row in found] for found in layers.values()]
        )
        for technique, layers in maps.items()
    }
    # The square root: a loss of a point counts more where there was none than where much is gone.
    norm = PowerNorm(0.5, 0, max(_LEAST_SCALE, *(each.max() for each in severe.values())))
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, len(maps), squeeze=False, width_ratios=columns)[0]
    for axis, (technique, layers) in zip(axes, maps.items(), strict=True):
        image = axis.imshow(severe[technique].clip(0), cmap="OrRd", norm=norm, aspect="auto")
        cells = [row for found in layers.values() for row in found]
        for ((y, x), value), row in zip(np.ndenumerate(severe[technique]), cells, strict=True):
            text = f"{round(value, 1) + 0:.1f}" if metric.is_fraction else metric.bare(row["drop"])
            dark = norm(max(value, 0)) > 0.6
            axis.text(x, y, text, ha="center", va="center", fontsize=8,
                      color="white" if dark else "black")  # fmt: skip
        levels = [row["level"] for row in next(iter(layers.values()))]
        texts = [response_table.level_text(technique, level) for level in levels]
        axis.set_xticks(range(len(levels)), texts, fontsize=8)
        axis.set_yticks(range(len(layers)), list(layers), fontsize=8)
        axis.set_xlabel(response_table.LEVELS[technique], fontsize=8)
        axis.set_title(technique, fontsize=10)
        axis.tick_params(length=0)
    label = response_table.lost(metric) + ("" if metric.is_fraction else ", %")
    figure.colorbar(image, ax=list(axes), label=label, pad=0.01)
    drawn = io.BytesIO()
    # The same bytes for the same rows, and text that stays text.
    with mpl.rc_context({"svg.hashsalt": "netopt", "svg.fonttype": "none"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()
