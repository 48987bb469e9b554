"""Objects in images: a class and a box for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from netopt_cli.boxes import (
    Anchors,
    average_precision,
    best_of,
    boxes_from,
    offsets_to,
    overlaps_in_graph,
)
from netopt_cli.errors import DataError
from netopt_cli.tasks import Outputs, Sources, Task, numbers, whole_numbers

if TYPE_CHECKING:
    import tensorflow as tf

    from netopt_cli.dataset import Source

NO_OBJECT = -1
"""The class of the rows that fill up the labels of an image with few objects."""
_BOX = 4
_FOCUS, _BALANCE = 2.0, 0.25
"""gamma and alpha of the focal loss."""
_CANDIDATES = 200
_OVERLAPS = np.arange(0.5, 1.0, 0.05)

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Detection(Task):
    """Single-shot detection (Liu et al., "SSD", 2016): for each anchor the logits of the classes
    and how the box is moved and scaled against it. The mAP at an overlap of one half counts.

    loss = focal loss of the classes (Lin et al., "RetinaNet", 2017), over the number of anchors
           that have an object, + the mean over these of the smooth L1 of their offsets

    An anchor has the object that it overlaps most, if by `match_overlap`, and so has for each
    object the anchor that overlaps it most; below `other_overlap` it has none, and in between it
    does not count.

    Labels are (n, most objects, 5): class, left, top, right, bottom, these as fractions of width
    and height; the class is -1 in rows without an object. Outputs are (n, anchors, classes + 4).

    Attributes:
        strides, sizes, ratios: Of the anchors, see `boxes.Anchors`.
        most_overlap: Of two boxes of one class, the less certain one is left out beyond it.
        least_score: Boxes below this probability are not said.
        most_objects: Of an image, that are said.
        shape: (height, width) of the images; found out by the run.
    """

    name: ClassVar[str] = "detection"

    strides: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (8, 16)
    sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (2.0, 3.0)
    ratios: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    match_overlap: Fraction = 0.5
    other_overlap: Fraction = 0.4
    most_overlap: Fraction = 0.5
    least_score: Fraction = 0.05
    most_objects: Annotated[int, Field(ge=1)] = 50
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.other_overlap > self.match_overlap:
            raise ValueError(
                "other_overlap must be <= match_overlap. Received: "
                f"other_overlap={self.other_overlap}, match_overlap={self.match_overlap}"
            )

    @property
    def metric(self) -> str:
        return "map_50"

    @property
    def anchors(self) -> Anchors:
        return Anchors(self.strides, self.sizes, self.ratios)

    def labels(self, split: str, y: np.ndarray) -> np.ndarray:
        """Returns (n, most objects, 5) float32."""
        y = numbers(split, y).astype(np.float32)
        if y.ndim != 3 or y.shape[2] != 1 + _BOX or not y.shape[1]:
            raise DataError(
                f"The {split} labels of task=detection must be (samples, most objects, 5): class, "
                f"left, top, right, bottom. Received: shape {y.shape}."
            )
        whole_numbers(split, y[..., 0], least=NO_OBJECT)
        boxes = np.where(y[..., :1] >= 0, y[..., 1:], np.array([0, 0, 1, 1], np.float32))
        is_box = (
            (boxes >= 0).all(-1) & (boxes <= 1).all(-1) & (boxes[..., :2] < boxes[..., 2:]).all(-1)
        )
        if not is_box.all():
            sample, index = np.argwhere(~is_box)[0]
            raise DataError(
                f"The {split} boxes must be left < right and top < bottom, as fractions of the "
                f"image. Received: {y[sample, index, 1:].tolist()}, box {index} of sample {sample}."
            )
        return y

    def outputs(self, sources: Sources, names: Sequence[str] | None) -> Outputs:
        """As many as an anchor has logits and offsets."""
        seen = np.unique(sources["train"].y[..., 0])
        seen = seen[seen >= 0].astype(int)
        if not len(seen):
            raise DataError("task=detection needs objects, and the train split has none.")
        known = tuple(names) if names is not None else tuple(map(str, range(seen[-1] + 1)))
        for split, source in sources.items():
            if source.y[..., 0].max() >= len(known):
                raise DataError(
                    f"The {split} classes must be in 0 … {len(known) - 1}. Received: "
                    f"{int(source.y[..., 0].max())}."
                )
            if len(source.shape) != 3:
                raise DataError(
                    "task=detection needs images (height, width, channels). Received: samples of "
                    f"{source.shape}."
                )
        return Outputs(len(known) + _BOX, known)

    def fitted(self, train: Source) -> Task:
        return replace(self, shape=train.shape[:2])

    def targets(self, x: tf.Tensor, labels: tf.Tensor, outputs: int) -> tf.Tensor:
        """(batch, anchors, classes + 4 + 2): classes, offsets, whether there is an object, whether
        the anchor counts."""
        import tensorflow as tf

        anchors = self.anchors.boxes(*self.shape)
        is_object = labels[..., 0] >= 0
        overlap = overlaps_in_graph(labels[..., 1:], anchors)
        overlap = tf.where(is_object[..., tf.newaxis], overlap, 0.0)
        nearest = tf.one_hot(tf.argmax(overlap, axis=-1), len(anchors))  # (batch, objects, anchors)
        overlap = tf.where((nearest > 0) & is_object[..., tf.newaxis], 1.0 + overlap, overlap)
        most, which = tf.reduce_max(overlap, axis=1), tf.argmax(overlap, axis=1)
        has_object = tf.cast(most >= self.match_overlap, tf.float32)[..., tf.newaxis]
        counts = tf.maximum(has_object, tf.cast(most < self.other_overlap, tf.float32)[..., None])
        its = tf.gather(labels, which, batch_dims=1)
        classes = tf.one_hot(tf.cast(its[..., 0], tf.int32), outputs - _BOX) * has_object
        offsets = tf.where(has_object > 0, offsets_to(its[..., 1:], anchors), 0.0)
        return tf.concat([classes, offsets, has_object, counts], axis=-1)

    def losses(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        y = tf.cast(y, outputs.dtype)
        classes, offsets, has_object, counts = _split(y, [-1, _BOX, 1, 1])
        logits, said = _split(outputs, [-1, _BOX])
        wrong = tf.abs(classes - tf.sigmoid(logits))
        balance = tf.abs(1 - classes - _BALANCE)
        cross = tf.nn.sigmoid_cross_entropy_with_logits(classes, logits)
        of_classes = tf.reduce_sum(balance * wrong**_FOCUS * cross * counts, axis=[1, 2])
        apart = tf.abs(said - offsets)
        smooth = tf.where(apart < 1, 0.5 * apart**2, apart - 0.5)
        of_boxes = tf.reduce_sum(smooth * has_object, axis=[1, 2])
        return (of_classes + of_boxes) / tf.maximum(tf.reduce_sum(has_object, axis=[1, 2]), 1)

    def imitation(self, outputs: tf.Tensor, wanted: tf.Tensor, temperature: float) -> tf.Tensor:
        """T² times the divergence of the softened probabilities, and the squared differences of
        the offsets, by how sure the teacher is of an object; both over how sure it is in all."""
        import tensorflow as tf

        logits, offsets = _split(outputs, [-1, _BOX])
        taught, shown = _split(wanted, [-1, _BOX])
        soft = tf.sigmoid(taught / temperature)
        cross = tf.nn.sigmoid_cross_entropy_with_logits(soft, logits / temperature)
        own = tf.nn.sigmoid_cross_entropy_with_logits(soft, taught / temperature)
        sure = tf.reduce_max(tf.sigmoid(taught), axis=-1)
        apart = tf.reduce_mean(tf.math.squared_difference(offsets, shown), axis=-1)
        total = temperature**2 * tf.reduce_sum(cross - own, axis=[1, 2])
        total += tf.reduce_sum(sure * apart, axis=1)
        return total / tf.maximum(tf.reduce_sum(sure, axis=1), 1)

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        """(n, most_objects, 6) float32: class, probability and box of what is found, best first;
        the class is -1 in rows without an object."""
        anchors = self.anchors.boxes(*self.shape)
        found = np.full((len(outputs), self.most_objects, 2 + _BOX), NO_OBJECT, np.float32)
        for row, one in zip(found, outputs, strict=True):
            said = self._objects(one, anchors)
            row[: len(said)] = said
        return found

    def _objects(self, one: np.ndarray, anchors: np.ndarray) -> np.ndarray:
        """(objects, 6) of the outputs (anchors, classes + 4) of one image."""
        probabilities = 1 / (1 + np.exp(-one[:, :-_BOX].astype(np.float64)))
        places, classes = np.nonzero(probabilities >= self.least_score)
        certainty = probabilities[places, classes]
        best = np.argsort(-certainty, kind="stable")[:_CANDIDATES]
        places, classes, certainty = places[best], classes[best], certainty[best]
        boxes = boxes_from(one[places, -_BOX:].astype(np.float64), anchors[places])
        apart = boxes + 2 * classes[:, np.newaxis]  # Boxes of two classes do not overlap then.
        kept = best_of(apart, certainty, self.most_overlap)[: self.most_objects]
        return np.column_stack([classes[kept], certainty[kept], boxes[kept]])

    def scores(
        self, labels: np.ndarray, outputs: np.ndarray, losses: np.ndarray
    ) -> dict[str, float]:
        """The means over the classes that are there."""
        classes = np.unique(labels[..., 0])
        precisions = [
            [_precision(labels, outputs, int(label), overlap) for overlap in _OVERLAPS]
            for label in classes[classes >= 0]
        ]
        if not precisions:
            return {"map_50": float("nan"), "map_50_95": float("nan")}
        return {
            "map_50": float(np.mean([of_class[0] for of_class in precisions])),
            "map_50_95": float(np.mean(precisions)),
        }

    def decoded(self, outputs: np.ndarray, names: Sequence[str]) -> list[Mapping[str, Any]]:
        """The objects of each image, best first."""
        return [
            {
                "objects": [
                    {
                        "class": names[int(row[0])],
                        "probability": round(float(row[1]), 4),
                        "box": np.round(row[2:], 4).tolist(),
                    }
                    for row in one[one[:, 0] >= 0].astype(np.float64)
                ]
            }
            for one in self.answers(outputs)
        ]


DETECTION = Detection()


def _precision(labels: np.ndarray, answers: np.ndarray, label: int, overlap: float) -> float:
    said = [one[one[:, 0] == label] for one in answers]
    wanted = [one[one[:, 0] == label, 1:] for one in labels]
    return average_precision(
        [one[:, 2:] for one in said], [one[:, 1] for one in said], wanted, overlap
    )


def _split(x: tf.Tensor, sizes: list[int]) -> list[tf.Tensor]:
    import tensorflow as tf

    return tf.split(x, sizes, axis=-1)
