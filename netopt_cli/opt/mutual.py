"""Deep mutual learning: networks that train together and learn from one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import keras
import tensorflow as tf
from pydantic import Field

from netopt_cli.contracts import ArchBuilder, Context, Forward, Modifier, Network, Preflight
from netopt_cli.dataset import Dataset
from netopt_cli.graph.distillation_losses import soft_target_loss
from netopt_cli.graph.reinitialize import reinitialize
from netopt_cli.starting import Start, refuse_late_scratch, started
from netopt_cli.suitability import needs_classes
from netopt_cli.task.classification import labeled_mean


@dataclass(frozen=True)
class Mutual:
    """Trains peers in the same step as the network, each on the labels and on what the others say
    (Zhang et al., "Deep Mutual Learning", CVPR 2018).

    loss of each = task + weight * mean over the others of T² KL(other || it)

    The network of the run is kept, whatever became of its peers: the best of several would be
    chosen among more trainings than the control has.

    Attributes:
        peer: The arch of the peers; None is the run's own.
        peers: How many, besides the network.
        temperature: T, of the softened predictions; 1 in the paper.
        weight: Of what the others say.
        start: `scratch` from new weights, `current` from those there are; `auto` is `scratch` for
            the first stage. The peers always start from new weights.
        epochs: Epochs of the stage; None is `train.epochs`.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    peer: ArchBuilder | None = None
    peers: Annotated[int, Field(ge=1)] = 1
    temperature: Annotated[float, Field(gt=0)] = 1.0
    weight: Annotated[float, Field(gt=0)] = 1.0
    start: Start = "auto"
    epochs: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        network, restart = started(network, context, self.start)
        peers = [self._new_peer(context, number) for number in range(1, self.peers + 1)]
        network = context.fit(
            network,
            epochs=self.epochs or context.epochs,
            learning_rate=self.learning_rate,
            modifiers=[self._together(peers)],
            restart=restart,
        )
        for number, peer in enumerate(peers, start=1):
            context.note(
                f"peer {number}, {peer.name}: {peer.count_params():,} parameters, validation "
                f"accuracy {context.evaluate(peer):.2%} after the last epoch"
            )
        return network

    def unsuited(self, data: Dataset) -> str | None:
        return needs_classes(data)

    def plan(self, preflight: Preflight) -> Network:
        refuse_late_scratch(preflight, self.start)
        if self.peer is not None:
            preflight.build(self.peer)
        return preflight.network

    def _new_peer(self, context: Context, number: int) -> keras.Model:
        peer = (context.fresh() if self.peer is None else context.build(self.peer)).model
        reinitialize(peer, context.seed + 1 + number)  # Or it would be the network's twin.
        return peer

    def _together(self, peers: Sequence[keras.Model]) -> Modifier:
        def extra_loss(step: Forward) -> tf.Tensor:
            of_peers = [tf.cast(peer(step.x, training=True), tf.float32) for peer in peers]
            everyone = [step.logits, *of_peers]
            loss = tf.constant(0.0)
            for logits in of_peers:
                task = tf.nn.softmax_cross_entropy_with_logits(step.y, logits)
                loss += labeled_mean(task, step.y)
            for index, logits in enumerate(everyone):
                for other in (*everyone[:index], *everyone[index + 1 :]):
                    target = tf.stop_gradient(tf.nn.softmax(other / self.temperature))
                    divergence = soft_target_loss(logits, target, self.temperature)
                    loss += self.weight / len(peers) * divergence
            return loss

        return Modifier("mutual", extra_loss=extra_loss, networks=tuple(peers))
