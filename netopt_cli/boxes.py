"""Boxes in images: anchors where they are looked for, how they overlap, and the best of many.

A box is (left, top, right, bottom), as fractions of the width and height of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

CENTRE_SCALE, SIZE_SCALE = 0.1, 0.2
"""Offsets are divided by these, so that they vary about as much as logits (Liu et al., 2016)."""
_LARGEST_LOG = 4.0
"""Of a side against its anchor's; a network that knows nothing yet would give infinite ones."""


@dataclass(frozen=True)
class Anchors:
    """Boxes of a few shapes around every place of some feature maps (Liu et al., "SSD", 2016).

    Attributes:
        strides: Pixels from place to place of each map.
        sizes: Sides of square anchors, in strides of their map.
        ratios: Of height to width, each at the area of the square.
    """

    strides: tuple[int, ...]
    sizes: tuple[float, ...]
    ratios: tuple[float, ...]

    @property
    def at_each_place(self) -> int:
        return len(self.sizes) * len(self.ratios)

    def maps(self, height: int, width: int) -> list[tuple[int, int]]:
        """(height, width) of each feature map."""
        return [(math.ceil(height / s), math.ceil(width / s)) for s in self.strides]

    def boxes(self, height: int, width: int) -> np.ndarray:
        """float32 (anchors, 4): map by map, row by row, place by place."""
        shapes = [
            (size / math.sqrt(ratio), size * math.sqrt(ratio))
            for size in self.sizes
            for ratio in self.ratios
        ]
        found = []
        for stride, (rows, columns) in zip(self.strides, self.maps(height, width), strict=True):
            y, x, which = np.meshgrid(
                np.arange(rows), np.arange(columns), np.arange(len(shapes)), indexing="ij"
            )
            half = np.asarray(shapes)[which.ravel()] / 2
            centre = np.stack([x.ravel(), y.ravel()], axis=1) + 0.5
            corners = np.concatenate([centre - half, centre + half], axis=1) * stride
            found.append(corners / [width, height, width, height])
        return np.concatenate(found).astype(np.float32)


def offsets_to(boxes: tf.Tensor, anchors: np.ndarray) -> tf.Tensor:
    """In the graph: how boxes (…, anchors, 4) are moved and scaled against anchors (anchors, 4)."""
    import tensorflow as tf

    centre, size = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    moved = ((boxes[..., :2] + boxes[..., 2:]) / 2 - centre) / size / CENTRE_SCALE
    sides = tf.maximum(boxes[..., 2:] - boxes[..., :2], 1e-6)
    return tf.concat([moved, tf.math.log(sides / size) / SIZE_SCALE], axis=-1)


def boxes_from(offsets: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The boxes (…, anchors, 4) of such offsets, inside of the image."""
    centre, size = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    centre = centre + offsets[..., :2] * CENTRE_SCALE * size
    half = np.exp(np.minimum(offsets[..., 2:] * SIZE_SCALE, _LARGEST_LOG)) * size / 2
    return np.concatenate([centre - half, centre + half], axis=-1).clip(0, 1)


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(boxes, others): intersection over union of (boxes, 4) and (others, 4)."""
    low = np.maximum(boxes[:, np.newaxis, :2], others[np.newaxis, :, :2])
    high = np.minimum(boxes[:, np.newaxis, 2:], others[np.newaxis, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    union = _area(boxes)[:, np.newaxis] + _area(others)[np.newaxis] - shared
    return shared / np.maximum(union, 1e-12)


def overlaps_in_graph(boxes: tf.Tensor, anchors: np.ndarray) -> tf.Tensor:
    """Likewise in the graph: (…, boxes, anchors) of (…, boxes, 4) and (anchors, 4)."""
    import tensorflow as tf

    boxes = boxes[..., tf.newaxis, :]
    low = tf.maximum(boxes[..., :2], anchors[:, :2])
    high = tf.minimum(boxes[..., 2:], anchors[:, 2:])
    shared = tf.reduce_prod(tf.maximum(high - low, 0), axis=-1)
    area = tf.reduce_prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
    return shared / tf.maximum(area + _area(anchors) - shared, 1e-12)


def best_of(boxes: np.ndarray, scores: np.ndarray, most_overlap: float) -> np.ndarray:
    """Indices, best score first, without those that overlap a better one by more: non-maximum
    suppression."""
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[overlaps(boxes[best][np.newaxis], boxes[order])[0] <= most_overlap]
    return np.asarray(kept, int)


def average_precision(
    found: list[np.ndarray], scores: list[np.ndarray], wanted: list[np.ndarray], overlap: float
) -> float:
    """The mean precision at 101 recalls of one class over a split, as COCO has it (Lin et al.,
    "Microsoft COCO", 2014): found boxes take, best score first, the wanted box of their image that
    they overlap most and that is not taken yet, if by `overlap` at least.

    Args:
        found: (boxes, 4) of each image.
        scores: (boxes,) of each image.
        wanted: (boxes, 4) of each image, one at least over all.
    """
    hits, said = [], []
    for boxes, certainty, true in zip(found, scores, wanted, strict=True):
        shared = overlaps(boxes, true)
        free = np.ones(len(true), bool)
        for index in np.argsort(-certainty, kind="stable"):
            candidates = np.where(free, shared[index], -1.0)
            best = int(candidates.argmax()) if len(true) else -1
            is_hit = best >= 0 and candidates[best] >= overlap
            if is_hit:
                free[best] = False
            hits.append(is_hit)
            said.append(certainty[index])
    order = np.argsort(-np.asarray(said), kind="stable")
    right = np.cumsum(np.asarray(hits, bool)[order])
    recall = right / sum(map(len, wanted))
    precision = right / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.append(precision, 0.0)[np.minimum(reached, len(precision))].mean())


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
