"""The bias of a class that was never shown."""

import keras
import numpy as np
import pytest

from netopt_cli.errors import InputError
from netopt_cli.graph.logit_bias import best_offsets, output_bias, recall


def samples(lowered: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    y = random.integers(0, 4, 600)
    logits = random.normal(size=(600, 4)).astype(np.float32)
    logits[np.arange(600), y] += 4.0
    for label, by in lowered.items():
        logits[:, label] -= by
    return logits, y


@pytest.mark.parametrize("lowered", [{2: 6.0}, {0: 5.0, 3: 7.0}])
def test_what_was_lowered_is_raised_again(lowered: dict[int, float]) -> None:
    logits, y = samples(lowered)
    offsets = best_offsets(logits, y, list(lowered))
    for label in range(4):
        assert offsets[label] == pytest.approx(lowered.get(label, 0.0), abs=1.0)
        if label in lowered:
            assert recall(logits, y, label) < 0.5
            assert recall(logits + offsets, y, label) > 0.9


def test_no_other_offset_is_better() -> None:
    logits, y = samples({1: 3.0})

    def right(offset: float) -> int:
        moved = logits + np.float32([0, offset, 0, 0])
        return int(np.sum(moved.argmax(axis=1) == y))

    best = right(best_offsets(logits, y, [1])[1])
    assert best == max(right(offset) for offset in np.linspace(-10, 20, 3001))


def test_a_head_without_a_bias_is_refused() -> None:
    inputs = keras.Input((5,))
    for head in (
        keras.layers.Dense(3, use_bias=False, name="bare"),
        keras.layers.Dense(3, activation="softmax", name="curved"),
    ):
        with pytest.raises(InputError, match=head.name):
            output_bias(keras.Model(inputs, head(inputs)))
    plain = keras.layers.Dense(3)
    assert output_bias(keras.Model(inputs, plain(inputs))) is plain.bias
