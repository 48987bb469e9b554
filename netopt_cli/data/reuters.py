"""Newswires of Reuters, 46 topics."""

from netopt_cli.assembly import SampleLimit
from netopt_cli.dataset import Dataset
from netopt_cli.keras_texts import keras_texts
from netopt_cli.text_splits import Fraction, TextOptions, assemble_texts


def load(
    seed: int,
    *,
    text: TextOptions,
    validation_fraction: Fraction = 0.1,
    train_limit: SampleLimit | None = None,
    labels_per_class: SampleLimit | None = None,
) -> Dataset:
    """Loads 8,982 + 2,246 newswires of one topic each, in small letters.

    Source: the Reuters-21578 collection, as `keras.datasets.reuters` has it.

    Args:
        seed: Of the validation split and of `train_limit` and of `labels_per_class`.
        text: See `text.train_encoder`.

    Raises:
        DataError: The data cannot be had.
    """
    import keras

    train, test = keras_texts(
        "Reuters",
        keras.datasets.reuters,
        "By hand: put reuters.npz and reuters_word_index.json into that folder.",
    )
    return assemble_texts(
        "reuters",
        train=train,
        test=test,
        class_names=keras.datasets.reuters.get_label_names(),
        seed=seed,
        text=text,
        validation_fraction=validation_fraction,
        test_fraction=0.2,
        train_limit=train_limit,
        labels_per_class=labels_per_class,
    )
