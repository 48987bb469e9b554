"""The sets of texts in `keras.datasets`, whose files have numbers of words in place of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from netopt_cli.readers import keras_download
from netopt_cli.text_splits import Texts

_FIRST_WORD = 3
"""Keras adds so much to the number of a word: 0 is padding, 1 begins a text, 2 is unknown."""


def keras_texts(name: str, module: ModuleType, by_hand: str) -> tuple[Texts, Texts]:
    """Gets a set and its index of words, and writes the texts out again, in small letters.

    Their files hold pickled lists, which could run code: Keras reads them after it has compared
    their hash with the one that it knows.

    Args:
        module: `keras.datasets.imdb` or `keras.datasets.reuters`.

    Raises:
        DataError: See `readers.keras_download`.
    """

    def load() -> Any:
        (x_train, y_train), (x_test, y_test) = module.load_data()
        words = {number + _FIRST_WORD: word for word, number in module.get_word_index().items()}
        return (
            ([_text(x, words) for x in x_train], np.asarray(y_train)),
            ([_text(x, words) for x in x_test], np.asarray(y_test)),
        )

    found: Any = keras_download(name, load, by_hand)
    return found


def _text(numbers: Sequence[int], words: Mapping[int, str]) -> str:
    return " ".join(words[number] for number in numbers if number in words)
