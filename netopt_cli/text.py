"""From texts to tokens: a vocabulary that is trained on the training split and kept with the model.

The tokenizers are those of Hugging Face (`tokenizers`): fast, and their file is what others read.
Hashed n-grams are ours, since no tokenizer has them: fastText's way to give a bag of words some
order and some spelling (Joulin et al., 2017, arXiv:1607.01759).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from netopt_cli.errors import DataError, InputError
from netopt_cli.inputs import PADDING, UNKNOWN
from netopt_cli.readers import require_file

Unit = Literal["word", "character", "subword"]

_SPECIAL = ["[PAD]", "[UNK]"]
assert (_SPECIAL.index("[PAD]"), _SPECIAL.index("[UNK]")) == (PADDING, UNKNOWN)


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """Texts -> tokens, always the same number: longer texts are cut, shorter ones padded.

    Attributes:
        tokenizer: From a text to its tokens.
        length: Tokens of a sample.
        word_ngrams: Up to so many words that follow one another are a further token.
        character_ngrams: The least and the most characters of parts of words that are further
            tokens; both 0: none.
        buckets: How many numbers the n-grams share, by hashing.
    """

    tokenizer: Tokenizer
    length: int
    word_ngrams: int = 1
    character_ngrams: tuple[int, int] = (0, 0)
    buckets: int = 0

    @property
    def vocabulary(self) -> int:
        """How many different tokens there are."""
        return self.tokenizer.get_vocab_size() + self.buckets

    @property
    def ngrams_from(self) -> int:
        """The first number of an n-gram; 0 where there are none."""
        return self.tokenizer.get_vocab_size() if self.buckets else 0

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Returns int32 (n, length)."""
        encoded = np.full((len(texts), self.length), PADDING, np.int32)
        for row, found in enumerate(self.tokenizer.encode_batch(list(texts))):
            tokens = [*found.ids, *self._ngrams(found.tokens)][: self.length]
            encoded[row, : len(tokens)] = tokens
        return encoded

    def _ngrams(self, words: Sequence[str]) -> Iterator[int]:
        if not self.buckets:
            return
        first = self.tokenizer.get_vocab_size()
        for ngram in _all_ngrams(words, self.word_ngrams, self.character_ngrams):
            yield first + zlib.crc32(ngram.encode()) % self.buckets

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes the same encoder."""
        return {
            "tokenizer": json.loads(self.tokenizer.to_str()),
            "length": self.length,
            "word_ngrams": self.word_ngrams,
            "character_ngrams": list(self.character_ngrams),
            "buckets": self.buckets,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TextEncoder:
        return cls(
            Tokenizer.from_str(json.dumps(values["tokenizer"])),
            values["length"],
            values["word_ngrams"],
            tuple(values["character_ngrams"]),
            values["buckets"],
        )


def train_encoder(
    texts: Sequence[str],
    *,
    unit: Unit,
    vocabulary: int,
    least_count: int,
    length: int,
    lowercase: bool,
    word_ngrams: int = 1,
    character_ngrams: tuple[int, int] = (0, 0),
    buckets: int = 0,
    tokenizer: str | None = None,
) -> TextEncoder:
    """Trains a vocabulary, or reads the one of an encoder that is trained already.

    Args:
        texts: Of the training split alone.
        unit: `word`: runs of letters and digits, and every other sign by itself; `character`;
            `subword`: byte pair encoding of words (Sennrich et al., 2016).
        vocabulary: Most tokens, padding and unknown included.
        least_count: Rarer ones are unknown.
        tokenizer: A `tokenizer.json` of Hugging Face; `unit` to `lowercase` are not asked then.

    Raises:
        DataError: No token is frequent enough, or the file is none that can be used.
    """
    found = (
        _read_tokenizer(tokenizer)
        if tokenizer is not None
        else _trained(texts, unit, vocabulary, least_count, lowercase)
    )
    has_ngrams = word_ngrams > 1 or character_ngrams[1]
    return TextEncoder(found, length, word_ngrams, character_ngrams, buckets if has_ngrams else 0)


def _read_tokenizer(file: str) -> Tokenizer:
    path = require_file(file)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # The package raises Exception itself.
        raise DataError(f"{path} is no tokenizer of Hugging Face: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    padding = tokenizer.id_to_token(PADDING)
    if padding is None or "pad" not in padding.lower():
        raise DataError(
            f"{path}: the first token must be what short texts are padded with, as [PAD] of BERT. "
            f"Received: {padding!r}"
        )
    return tokenizer


def _trained(
    texts: Sequence[str], unit: Unit, vocabulary: int, least_count: int, lowercase: bool
) -> Tokenizer:
    is_subword = unit == "subword"
    trainer = trainers.BpeTrainer if is_subword else trainers.WordLevelTrainer
    tokenizer = Tokenizer((models.BPE if is_subword else models.WordLevel)(unk_token="[UNK]"))
    steps = [normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])]
    tokenizer.normalizer = normalizers.Sequence(steps)
    if unit == "character":
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        texts,
        trainer(
            vocab_size=vocabulary,
            min_frequency=least_count,
            special_tokens=_SPECIAL,
            show_progress=False,
        ),
    )
    if tokenizer.get_vocab_size() <= len(_SPECIAL):
        raise DataError(
            f"No token occurs {least_count} times in the training texts: lower data.least_count."
        )
    return tokenizer


def _all_ngrams(
    words: Sequence[str], most_words: int, characters: tuple[int, int]
) -> Iterator[str]:
    for count in range(2, most_words + 1):
        for start in range(len(words) - count + 1):
            yield " ".join(words[start : start + count])
    least, most = characters
    if most:
        for word in words:
            framed = f"<{word}>"
            for count in range(least, most + 1):
                for start in range(len(framed) - count + 1):
                    yield framed[start : start + count]


@dataclass(frozen=True, eq=False)
class TextReader:
    """Sentences as they are.

    Attributes:
        encoder: Makes samples of them.
    """

    encoder: TextEncoder
    kind = "text"
    expects = "a text"

    def to_json(self) -> dict[str, Any]:
        return self.encoder.to_json()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TextReader:
        return cls(TextEncoder.from_json(values))

    def read(self, values: Sequence[str]) -> list[tuple[str, np.ndarray]]:
        for number, value in enumerate(values, 1):
            if not value.strip():
                raise InputError(
                    f"a text must have a word. Received: an empty one, number {number} of "
                    f"{len(values)}"
                )
        return list(zip(values, self.encoder(values), strict=True))
