"""Encoders that are trained already: which files fit which texts."""

from pathlib import Path

import keras
import numpy as np
import pytest

from netopt_cli.arch.text_encoder import build
from netopt_cli.errors import ArchError, MissingExtraError
from netopt_cli.inputs import Field, Inputs

LENGTH = 6
TEXTS = Inputs((Field("text", "tokens", (LENGTH,), 20),))


def saved(folder: Path, length: int | None = None, names: tuple[str, ...] = ("token_ids",)) -> str:
    inputs = {name: keras.Input((length,), dtype="int32", name=name) for name in names}
    x = keras.layers.Embedding(20, 4)(inputs[names[0]])
    for name in names[1:]:
        x = x + keras.ops.cast(inputs[name], "float32")[..., None]
    if length is not None:
        x = keras.layers.Dense(4)(keras.layers.Flatten()(x))
    path = folder / "encoder.keras"
    keras.Model(inputs if names[1:] else inputs[names[0]], x).save(path)
    return str(path)


def test_the_weights_of_the_file_are_kept_and_may_be_frozen(tmp_path: Path) -> None:
    path = saved(tmp_path)
    table = keras.saving.load_model(path).get_weights()[0]
    model = build((LENGTH,), 3, inputs=TEXTS, path=path, frozen=True, dropout=0.0)
    np.testing.assert_array_equal(model.get_weights()[0], table)
    assert [weight.path for weight in model.trainable_variables] == ["logits/kernel", "logits/bias"]
    tokens = np.array([[5, 7, 0, 0, 0, 0]], np.int32)
    kernel, bias = model.get_layer("logits").get_weights()
    mean = table[[5, 7]].mean(axis=0)
    np.testing.assert_allclose(model(tokens)[0], mean @ kernel + bias, rtol=1e-5)
    first = build((LENGTH,), 3, inputs=TEXTS, path=path, pooling="first", dropout=0.0)
    kernel, bias = first.get_layer("logits").get_weights()
    np.testing.assert_allclose(first(tokens)[0], table[5] @ kernel + bias, rtol=1e-5)


def test_padding_is_told_to_an_encoder_that_asks(tmp_path: Path) -> None:
    path = saved(tmp_path, names=("token_ids", "padding_mask", "segment_ids"))
    model = build((LENGTH,), 3, inputs=TEXTS, path=path, dropout=0.0)
    table = keras.saving.load_model(path).get_weights()[0]
    kernel, bias = model.get_layer("logits").get_weights()
    mean = table[[5, 7]].mean(axis=0) + 1
    tokens = np.array([[5, 7, 0, 0, 0, 0]], np.int32)
    np.testing.assert_allclose(model(tokens)[0], mean @ kernel + bias, rtol=1e-5)


@pytest.mark.parametrize(
    ("made", "vocabulary", "message"),
    [
        ({}, 30, r"knows 20 tokens and the data has 30.*data\.text\.tokenizer"),
        ({"length": 4}, 20, r"another length than 6 tokens|cannot be built for 6 tokens"),
        ({"names": ("token_ids", "image")}, 20, r"one input, or some of token_ids.*image"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(
    tmp_path: Path, made: dict, vocabulary: int, message: str
) -> None:
    texts = Inputs((Field("text", "tokens", (LENGTH,), vocabulary),))
    with pytest.raises(ArchError, match=message):
        build((LENGTH,), 3, inputs=texts, path=saved(tmp_path, **made))


def test_a_file_or_a_preset(tmp_path: Path) -> None:
    with pytest.raises(ArchError, match=r"exactly one of arch.path .*path=None, preset=None"):
        build((LENGTH,), 3, inputs=TEXTS)
    with pytest.raises(MissingExtraError, match=r"pip install 'netopt\[keras_hub\]'"):
        build((LENGTH,), 3, inputs=TEXTS, preset="bert_tiny_en_uncased")
