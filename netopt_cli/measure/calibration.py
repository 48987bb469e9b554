"""How well a network knows what it knows: calibration, and whether it notices foreign samples."""

from __future__ import annotations

import numpy as np

BINS = 15


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """float64 (n, classes), finite for finite logits."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy (nats): (n, classes), (n,) -> scalar."""
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance of confidence and accuracy over 15 equal intervals of confidence, weighted by
    the samples in each (Guo et al., 2017): 0 is calibrated, 1 the worst.

    Args:
        logits: (n, classes).
        labels: (n,).
    """
    confidence = np.exp(log_softmax(logits)).max(axis=-1)
    correct = logits.argmax(axis=-1) == labels
    interval = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(interval, weights=confidence - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def max_softmax(logits: np.ndarray) -> np.ndarray:
    """(n, classes) -> (n,): the largest probability (Hendrycks and Gimpel, 2017)."""
    return np.exp(log_softmax(logits)).max(axis=-1)


def negative_energy(logits: np.ndarray) -> np.ndarray:
    """(n, classes) -> (n,): the log of the sum of the exponentials (Liu et al., 2020)."""
    largest = logits.max(axis=-1).astype(np.float64)
    return largest + np.log(np.exp(logits - largest[:, None]).sum(axis=-1))


def auroc(own: np.ndarray, foreign: np.ndarray) -> float:
    """Probability that a sample of its own scores higher than a foreign one; 0.5 is guessing."""
    from sklearn.metrics import roc_auc_score

    is_own = np.concatenate([np.ones(len(own)), np.zeros(len(foreign))])
    return float(roc_auc_score(is_own, np.concatenate([own, foreign])))
