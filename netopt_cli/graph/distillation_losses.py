"""What a student is told by its teacher: losses on logits and on features.

Every loss is a scalar, the mean over the batch, whose size does not depend on the batch size, the
number of positions or the number of channels, so that one weight serves any pair of layers. The
teacher's side takes no gradient: see `teaching`.
"""

from __future__ import annotations

import tensorflow as tf

_TINY = 1e-7
_LEAST = 1e-8
"""Below any norm that counts: for divisions and roots, whose gradient at 0 is not finite."""


def soft_target_loss(
    student: tf.Tensor, target: tf.Tensor, temperature: float, weights: tf.Tensor | None = None
) -> tf.Tensor:
    """T² KL(target || softmax(student / T)), which matches softened predictions.

    G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015.

    Args:
        student: Logits, float32 (batch, classes).
        target: Probabilities at this temperature, float32 (batch, classes).
        weights: Of the samples, (batch,); None is 1 each.
    """
    log_predicted = tf.nn.log_softmax(student / temperature)
    divergence = tf.reduce_sum(tf.math.xlogy(target, target) - target * log_predicted, axis=-1)
    if weights is not None:
        divergence *= weights
    return temperature**2 * tf.reduce_mean(divergence)


def decoupled_loss(
    student: tf.Tensor,
    target: tf.Tensor,
    y: tf.Tensor,
    temperature: float,
    others_weight: float,
) -> tf.Tensor:
    """The divergence of `soft_target_loss` in two parts, each with a weight of its own: how sure of
    the true class, and what the other classes are like among themselves.

    B. Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022 (alpha = 1, beta =
    `others_weight`).

    Args:
        student: Logits, float32 (batch, classes).
        target: Probabilities at this temperature, float32 (batch, classes).
        y: float32 (batch, classes); the true class is the most probable one.
    """
    true = tf.one_hot(tf.argmax(y, axis=-1), y.shape[-1])
    log_predicted = tf.nn.log_softmax(student / temperature)
    of_true = tf.reduce_sum(target * true, axis=-1)
    log_of_true = tf.reduce_sum(log_predicted * true, axis=-1)
    # log(1 - p) from the other logits: exact where p is nearly 1.
    log_of_rest = tf.reduce_logsumexp(log_predicted - 1e9 * true, axis=-1)
    rest = 1.0 - of_true
    of_classes = (
        tf.math.xlogy(of_true, of_true)
        + tf.math.xlogy(rest, rest)
        - of_true * log_of_true
        - rest * log_of_rest
    )
    others = target * (1.0 - true) / tf.maximum(rest, _TINY)[:, None]
    log_others = tf.nn.log_softmax(student / temperature - 1e9 * true)
    among_others = tf.reduce_sum(
        tf.math.xlogy(others, others) - others * tf.where(true > 0, 0.0, log_others), axis=-1
    )
    return temperature**2 * tf.reduce_mean(of_classes + others_weight * among_others)


def hint_loss(student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """The squared difference of features, as a share of the teacher's own square.

    A. Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015.

    Args:
        student: Projected to the teacher's channels, of the shape of `teacher`.
        teacher: float32 (batch, …, channels).
    """
    difference = tf.reduce_mean(tf.math.squared_difference(student, teacher))
    return difference / tf.maximum(tf.reduce_mean(tf.square(teacher)), _TINY)


def attention_loss(student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """The squared distance between normalized maps of where activations are strong.

    S. Zagoruyko, N. Komodakis, "Paying More Attention to Attention", ICLR 2017. A map is the mean
    square over the channels; the teacher's is resized to the student's height and width.

    Args:
        student, teacher: float32 (batch, height, width, channels).
    """
    own = tf.reduce_mean(tf.square(student), axis=-1, keepdims=True)
    shown = tf.reduce_mean(tf.square(teacher), axis=-1, keepdims=True)
    if own.shape[1:3] != shown.shape[1:3]:
        shown = tf.image.resize(shown, own.shape[1:3], antialias=True)
    difference = _unit(_flat(own)) - _unit(_flat(shown))
    return tf.reduce_mean(tf.reduce_sum(tf.square(difference), axis=-1))


def relational_loss(student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """How samples lie to one another: their distances, and twice the angles they make.

    W. Park et al., "Relational Knowledge Distillation", CVPR 2019, with its ratio of weights.
    Distances are in units of their mean over the batch.

    Args:
        student, teacher: Embeddings, float32 (batch, any), of different widths or not.
    """
    distance = _huber(_relative_distances(student) - _relative_distances(teacher))
    angle = _huber(_angles(student) - _angles(teacher))
    return distance + 2.0 * angle


def similarity_loss(student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """The squared difference of the batch's similarity matrices, with rows of norm 1.

    F. Tung, G. Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019.

    Args:
        student, teacher: float32 (batch, …).
    """
    difference = _unit(_gram(_flat(student))) - _unit(_gram(_flat(teacher)))
    return tf.reduce_mean(tf.reduce_sum(tf.square(difference), axis=-1))


def contrastive_loss(student: tf.Tensor, teacher: tf.Tensor, temperature: float) -> tf.Tensor:
    """How badly each sample's own partner is told from those of the rest of the batch (nats).

    Y. Tian, D. Krishnan, P. Isola, "Contrastive Representation Distillation", ICLR 2020, with the
    other samples of the batch as negatives, in both directions (InfoNCE). The paper draws 16,384
    of them from a memory of every training sample's embedding, which is as large as the training
    split and stale; here it is fresh, needs no memory and no label, and wants a large batch.

    Args:
        student, teacher: Embeddings of one width, float32 (batch, size).
    """
    likeness = tf.matmul(_unit(student), _unit(teacher), transpose_b=True) / temperature
    own = tf.range(tf.shape(likeness)[0])
    there = tf.nn.sparse_softmax_cross_entropy_with_logits(own, likeness)
    back = tf.nn.sparse_softmax_cross_entropy_with_logits(own, tf.transpose(likeness))
    return 0.5 * tf.reduce_mean(there + back)


def embedding(features: tf.Tensor) -> tf.Tensor:
    """Means over the positions: (batch, …, channels) -> (batch, channels)."""
    axes = list(range(1, len(features.shape) - 1))
    return tf.reduce_mean(features, axis=axes) if axes else features


def _flat(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(x, (tf.shape(x)[0], -1))


def _unit(x: tf.Tensor) -> tf.Tensor:
    """Rows of norm 1."""
    return tf.math.l2_normalize(x, axis=-1, epsilon=_LEAST)


def _gram(x: tf.Tensor) -> tf.Tensor:
    return tf.matmul(x, x, transpose_b=True)


def _relative_distances(x: tf.Tensor) -> tf.Tensor:
    """(batch, batch): the distance of each pair, over the mean of all pairs."""
    squares = tf.reduce_sum(tf.square(x), axis=-1)
    squared = tf.maximum(squares[:, None] + squares[None, :] - 2.0 * _gram(x), 0.0)
    apart = 1.0 - tf.eye(tf.shape(x)[0])
    distances = tf.sqrt(squared + _LEAST) * apart
    mean = tf.reduce_sum(distances) / tf.maximum(tf.reduce_sum(apart), 1.0)
    return distances / tf.maximum(mean, _TINY)


def _angles(x: tf.Tensor) -> tf.Tensor:
    """(batch, batch, batch): the cosine at the first sample between the ways to two others."""
    ways = _unit(x[None, :, :] - x[:, None, :])
    return tf.matmul(ways, ways, transpose_b=True)


def _huber(difference: tf.Tensor) -> tf.Tensor:
    size = tf.abs(difference)
    return tf.reduce_mean(tf.where(size < 1.0, 0.5 * tf.square(difference), size - 0.5))
