"""FixMatch: what the network is sure of on a sample, it is to say of the augmented sample too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import tensorflow as tf
from pydantic import Field

from netopt_cli.augment import AugmentOptions, augmentation
from netopt_cli.contracts import Context, Forward, Modifier, Network, Preflight
from netopt_cli.dataset import Dataset
from netopt_cli.errors import InputError
from netopt_cli.few_labels import (
    probabilities,
    random_samples,
    repeated,
    require_images,
    require_unlabeled,
)
from netopt_cli.graph.thresholds import AdaptiveThreshold, FixedThreshold, Threshold
from netopt_cli.starting import Start, refuse_late_scratch, started
from netopt_cli.suitability import needs_classes

_LEAST = 1e-6
"""Of a class that no sample of the batch is taken for."""


def aligned(predictions: tf.Tensor, frequency: tf.Tensor) -> tf.Tensor:
    """Weighs what is predicted, (n, classes), so that its mean comes near the frequency of the
    classes, and so that each row sums to one again."""
    weighed = predictions * frequency / (tf.reduce_mean(predictions, axis=0) + _LEAST)
    return weighed / tf.reduce_sum(weighed, axis=-1, keepdims=True)


@dataclass(frozen=True)
class FixMatch:
    """Trains on the labelled samples, and on samples without labels by consistency: the class that
    the network predicts of the weakly augmented sample, where it is sure enough, is the label of
    the strongly augmented one (Sohn et al., "FixMatch", NeurIPS 2020).

    loss = task + unlabeled_weight * mean over the unlabelled of [p > threshold] * cross-entropy

    Weak augmentation is that of the run (`data.augment`); the baseline and the control have it too.
    Labelled and unlabelled samples are one batch, as in the paper, so that BatchNorm normalizes
    with the statistics of all of them, as its moving averages will at inference. The control is
    trained as many steps on the labelled samples alone.

    With `align` predictions are first weighed so that the classes are as frequent among them as
    among the labels (distribution alignment: Berthelot et al., "ReMixMatch", ICLR 2020). A network
    that confuses two classes would else teach itself to, ever more surely. Their frequency is
    that within the batch, so that a run which goes on from a checkpoint needs no further state.

    Attributes:
        threshold: Probability from which a prediction counts; `adaptive` has one for each class,
            which follow what the network is sure of (`graph.thresholds`).
        unlabeled_ratio: Samples without label for each labelled one of a batch (mu).
        unlabeled_weight: Factor of their loss.
        align: Whether predictions are weighed to the frequency of the labels.
        strong: The augmentation that comes on top of the weak one: see `augment.augmentation`.
        keep: Whether later stages go on learning from the samples without labels.
        start: `scratch` from new weights, `current` from those there are; `auto` is `scratch` for
            the first stage.
        epochs: Passes over as many samples as have no label.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["adaptive"] = 0.95
    unlabeled_ratio: Annotated[int, Field(ge=1)] = 7
    unlabeled_weight: Annotated[float, Field(gt=0)] = 1.0
    align: bool = False
    strong: AugmentOptions | None = None
    keep: bool = False
    start: Start = "auto"
    epochs: Annotated[int, Field(ge=1)] = 10
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        network, restart = started(network, context, self.start)
        data = context.data
        assert data.unlabeled is not None  # see `plan`
        samples = len(data.unlabeled) // self.unlabeled_ratio
        threshold = self._threshold(data.classes)
        modifier = self._consistency(data, threshold)
        network = context.fit(
            network,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            modifiers=[modifier],
            restart=restart,
            data=repeated(data, samples),
            control_data=repeated(context.control_data, samples),
        )
        said = probabilities(network.model, data, data.unlabeled)
        final = threshold().numpy()
        is_sure = said.max(axis=-1) > final[said.argmax(axis=-1)]
        asked = f"{final.min():.3g}"
        if self.threshold == "adaptive":
            asked += f" to {final.max():.3g}, by class,"
        context.note(
            f"surer than {asked} of {is_sure.mean():.1%} of {len(said):,} samples without label"
        )
        if self.keep:
            network = replace(network, keeps=(*network.keeps, lambda model: modifier))
        return network

    def unsuited(self, data: Dataset) -> str | None:
        return needs_classes(data)

    def plan(self, preflight: Preflight) -> Network:
        refuse_late_scratch(preflight, self.start)
        require_unlabeled(preflight)
        require_images(preflight)
        if augmentation(**(self.strong or {})) is None:
            raise InputError(
                f"opt.{preflight.stage}.strong switches nothing on: without a stronger "
                "augmentation there is nothing to be consistent with"
            )
        return preflight.network

    def _threshold(self, classes: int) -> Threshold:
        if self.threshold == "adaptive":
            return AdaptiveThreshold(classes)
        return FixedThreshold(self.threshold, classes)

    def _consistency(self, data: Dataset, threshold: Threshold) -> Modifier:
        strong = augmentation(**(self.strong or {}))
        assert strong is not None and data.unlabeled is not None  # see `plan`
        draw = random_samples(data.unlabeled, data.normalization)
        labels = np.bincount(data.train.y, minlength=data.classes)
        frequency = tf.constant(labels / labels.sum(), tf.float32)

        def weak(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            return x if data.augment is None else data.augment(x, seed)

        def with_unlabeled(
            x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            seeds = [seed + tf.constant([index, 0]) for index in range(4)]
            drawn = draw(self.unlabeled_ratio * tf.shape(x)[0], seeds[0])
            views = [weak(drawn, seeds[1]), strong(weak(drawn, seeds[2]), seeds[3])]
            no_label = tf.zeros([2 * self.unlabeled_ratio * tf.shape(y)[0], y.shape[1]])
            return tf.concat([x, *views], axis=0), tf.concat([y, no_label], axis=0)

        def extra_loss(step: Forward) -> tf.Tensor:
            # (1 + 2 mu) parts: labelled, weak, strong.
            labeled = tf.shape(step.logits)[0] // (1 + 2 * self.unlabeled_ratio)
            weakly, strongly = tf.split(step.logits[labeled:], 2)
            target = tf.stop_gradient(tf.nn.softmax(weakly))
            if self.align:
                target = aligned(target, frequency)
            threshold.follow(target)
            said = tf.argmax(target, axis=-1)
            is_sure = tf.reduce_max(target, axis=-1) > tf.gather(threshold(), said)
            cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(said, strongly)
            return self.unlabeled_weight * tf.reduce_mean(
                tf.cast(is_sure, tf.float32) * cross_entropy
            )

        return Modifier(
            "fixmatch",
            transform_batch=with_unlabeled,
            extra_loss=extra_loss,
        )
