"""A network for a data set: an arch, called with what the samples are and what is to be learned."""

from __future__ import annotations

import inspect
from typing import Any

from netopt_cli.contracts import ArchBuilder, Network
from netopt_cli.dataset import Dataset
from netopt_cli.errors import ArchError


def build_network(arch: ArchBuilder, data: Dataset, classes: int | None = None) -> Network:
    """Builds the network of an arch with new weights, for so many of the classes; None for all.

    An arch that takes `inputs` gets them; any other is for plain values. One that takes `anchors`
    is for tasks about boxes.

    Raises:
        ArchError: It cannot be built for samples like these.
    """
    called: Any = getattr(arch, "target", arch)
    parameters = inspect.signature(called).parameters
    classes = data.classes if classes is None else classes
    if "inputs" in parameters:
        return Network(arch(shape=data.shape, classes=classes, inputs=data.inputs))
    anchors = data.task.anchors
    if ("anchors" in parameters) != (anchors is not None):
        name = called.__module__.rpartition(".")[2]
        raise ArchError(
            f"{name} does not say where boxes are. For task={data.task.name} use arch=ssd"
            if anchors
            else f"{name} is for task=detection. Received: task={data.task.name}"
        )
    if anchors is not None:
        return Network(arch(shape=data.shape, classes=classes, anchors=anchors))
    if not data.inputs.are_values:
        raise ArchError(
            f"{called.__module__.rpartition('.')[2]} needs samples of values. Received: "
            f"{data.inputs.describe()} of data={data.name}. For texts use arch=bag_of_embeddings, "
            "text_cnn, rnn or transformer; for users and items one made for ratings"
        )
    return Network(arch(shape=data.shape, classes=classes))
