"""Born-again networks: generations of one arch, each taught by the one before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from netopt_cli.contracts import Context, Network, Preflight
from netopt_cli.dataset import Dataset
from netopt_cli.errors import InputError
from netopt_cli.graph.reinitialize import reinitialize
from netopt_cli.graph.teaching import Lesson
from netopt_cli.suitability import needs_classes


@dataclass(frozen=True)
class BornAgain:
    """Trains the run's arch anew, with the network as its teacher; then again with that one
    (Furlanello et al., "Born-Again Neural Networks", ICML 2018).

    Each generation starts from new weights and trains as long as the others, so that the control is
    the same network trained once, without a teacher. The last generation is kept.

    Attributes:
        generations: How often.
        temperature: Of the softened predictions; 1 in the paper.
        student_loss_weight: The share of the loss on the labels.
        epochs: Epochs of each generation; None is `train.epochs`.
        learning_rate: Peak of each generation's schedule; None is that of `train`.
    """

    generations: Annotated[int, Field(ge=1)] = 2
    temperature: Annotated[float, Field(gt=0)] = 1.0
    student_loss_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    epochs: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        lesson = Lesson(temperature=self.temperature, student_loss_weight=self.student_loss_weight)
        for generation in range(1, self.generations + 1):
            teacher = network.model
            network = replace(network, model=context.fresh().model)
            # A twin of the teacher would learn the same way again.
            reinitialize(network.model, context.seed + 1 + generation)
            network = context.fit(
                network,
                epochs=self.epochs or context.epochs,
                learning_rate=self.learning_rate,
                modifiers=[lesson.modifier([teacher])],
                restart=True,
            )
            context.note(
                f"generation {generation}: validation accuracy {context.evaluate(teacher):.2%} -> "
                f"{context.evaluate(network.model):.2%}"
            )
        return network

    def unsuited(self, data: Dataset) -> str | None:
        return needs_classes(data)

    def plan(self, preflight: Preflight) -> Network:
        if not preflight.is_first:
            raise InputError(
                f"opt.{preflight.stage} trains the run's arch from new weights and would throw "
                "away what the stages before it made: put it first"
            )
        return preflight.network
