"""Narrower networks that share the weights of a wide one."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from netopt_cli.contracts import Forward, Modifier
from netopt_cli.graph.channels import read_channels, weights_by_path
from netopt_cli.graph.surgery import kept_indices, remove
from netopt_cli.task.classification import labeled_mean


class Narrow:
    """A network of the first channels of each layer, whose weights are slices of the wide one's.

    Its BatchNorms are its own (switchable batch normalization; Yu et al., 2019, "Slimmable neural
    networks"): scale, offset and statistics.

    Attributes:
        model: The narrow network; its shared weights have values after `settle` alone.
        own: The weights that it trains itself.
    """

    def __init__(self, wide: keras.Model, width: float) -> None:
        graph = read_channels(wide)
        removed = {g.name: range(max(1, round(width * g.size)), g.size) for g in graph.groups}
        self.model = remove(wide, graph, removed)
        kept = kept_indices(wide, graph, removed)
        wide_weights = weights_by_path(wide)
        private = {
            id(weight)
            for layer in self.model._flatten_layers(include_self=False)
            if isinstance(layer, keras.layers.BatchNormalization)
            for weight in layer.weights
        }
        trainable = {id(weight) for weight in self.model.trainable_variables}
        self.own = [w for w in self.model.trainable_variables if id(w) in private]
        self._shared = [
            (weight, wide_weights[path], kept[path])
            for path, weight in weights_by_path(self.model).items()
            if id(weight) in trainable and id(weight) not in private
        ]

    def logits(self, x: tf.Tensor) -> tf.Tensor:
        """(batch, *shape) -> (batch, classes), in training, by the wide network's weights."""
        pairs = [(weight, _slice(source.value, kept)) for weight, source, kept in self._shared]
        with keras.StatelessScope(state_mapping=pairs) as scope:
            logits = self.model(x, training=True)
        for variable in self.model.non_trainable_variables:
            value = scope.get_current_value(variable)
            if value is not None:
                variable.assign(value)
        return tf.cast(logits, tf.float32)

    def settle(self) -> None:
        """Gives the narrow network the weights that it shares."""
        for weight, source, kept in self._shared:
            weight.assign(_slice(source.value, kept))


def train_narrow(networks: Sequence[Narrow], *, distill: bool) -> Modifier:
    """Trains narrow networks along with the wide one: their losses are added to its own.

    Args:
        distill: Whether they learn from the wide one's predictions, not from the labels (Yu and
            Huang, 2019).
    """

    def extra_loss(step: Forward) -> tf.Tensor:
        target = tf.stop_gradient(tf.nn.softmax(step.logits)) if distill else step.y
        losses = [
            tf.nn.softmax_cross_entropy_with_logits(target, network.logits(step.x))
            for network in networks
        ]
        return tf.add_n([labeled_mean(loss, target) for loss in losses])

    return Modifier(
        "narrow networks",
        extra_loss=extra_loss,
        variables=tuple(weight for network in networks for weight in network.own),
        # Their own weights are those of the last step: so must be the shared ones.
        settles_at=1.0,
    )


def _slice(value: tf.Tensor, kept: Sequence[object]) -> tf.Tensor:
    for axis, indices in enumerate(kept):
        if indices is not None:
            value = tf.gather(value, indices, axis=axis)
    return tf.convert_to_tensor(value)
