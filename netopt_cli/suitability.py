"""Why a technique makes no sense for some data: what stages answer when they are asked.

Each function gives the reason as the end of a sentence, or None where there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netopt_cli.dataset import Dataset


def needs_classes(data: Dataset) -> str | None:
    """Of a technique about the logits of classes."""
    if data.task.is_classification:
        return None
    return f"it is made for one class a sample, which task={data.task.name} does not have"


def needs_values(data: Dataset) -> str | None:
    """Of a technique that computes with samples, which tokens and ids do not allow."""
    if data.inputs.are_values:
        return None
    return (
        f"it changes the values of samples, and those of data={data.name} are "
        f"{data.inputs.describe()}, which are names, not numbers"
    )


def needs_a_teachable_task(data: Dataset) -> str | None:
    """Of a technique in which one network imitates what another says."""
    if data.task.imitates:
        return None
    return f"with task={data.task.name} the outputs of one network are no lesson for another"
