"""The weights in the exported files, one histogram a stage."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from netopt_cli.measure.file_weights import real_values
from netopt_cli.report.drawing import Box, Drawing, Label
from netopt_cli.report.scales import BOTTOM, LEFT, RIGHT, TOP, frame, scale, short, short_percent
from netopt_cli.report.subject import Entry, Subject

_SIZE = (275, 200)
_BINS = 60
_SHOWN = 0.99
"""The part of the weights that the diagram reaches; a few far ones would flatten it."""


@dataclass(frozen=True)
class _Weights:
    entry: Entry
    values: np.ndarray

    @property
    def nonzero(self) -> np.ndarray:
        return self.values[self.values != 0]


def of_run(subject: Subject) -> tuple[list[Drawing], list[str]]:
    """The diagrams of the baseline and the stages, all of one width, and what could not be read."""
    found, problems = [], []
    for entry in subject.main_line:
        try:
            parts = [real_values(path.read_bytes()) for path in subject.files(entry)]
        except (OSError, ValueError) as error:
            problems.append(f"weights of {entry.name}: {error}")
            continue
        if not parts:
            problems.append(f"weights of {entry.name}: its exported file is not there any more")
        elif (weights := _Weights(entry, np.concatenate(parts))).nonzero.size:
            found.append(weights)
        else:
            problems.append(f"weights of {entry.name}: its file has none")
    if not found:
        return [], problems
    reach = max(float(np.quantile(np.abs(each.nonzero), _SHOWN)) for each in found)
    return [_draw(each, reach) for each in found], problems


def _draw(weights: _Weights, reach: float) -> Drawing:
    width, height = _SIZE
    drawing = Drawing(width, height, weights.entry.name)
    nonzero = weights.nonzero
    counts, edges = np.histogram(nonzero, _BINS, (-reach, reach))
    shares = counts / nonzero.size
    x = scale([-0.89 * reach, 0.89 * reach], LEFT, width - RIGHT)
    y = scale([0.0, float(shares.max()) or 1.0], height - BOTTOM, TOP + 14)
    y = replace(y, low=0.0)
    frame(drawing, x, y, x_text=short, y_text=short_percent, x_title="weight")
    step = (x.end - x.start) / _BINS
    for share, left in zip(shares.tolist(), edges.tolist(), strict=False):
        if share:
            top = y(share)
            said = f"{left:.4g} to {left + 2 * reach / _BINS:.4g}: {share:.2%} of those not zero"
            drawing.add(
                Box(x(left), top, step - 0.6, y.start - top, weights.entry.colour, 0.85, said)
            )
    zeros = 1 - nonzero.size / weights.values.size
    values = len(np.unique(weights.values))
    said = f"{weights.values.size:,} weights: {100 * zeros:.1f} % zero, {values:,} values"
    drawing.add(Label(LEFT - 30, 33, said, 9.5, colour="muted"))
    return drawing
