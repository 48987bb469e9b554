"""Film reviews of IMDb, positive and negative."""

from pathlib import Path

import numpy as np

from netopt_cli.assembly import SampleLimit
from netopt_cli.dataset import Dataset
from netopt_cli.errors import DataError
from netopt_cli.keras_texts import keras_texts
from netopt_cli.readers import require_folder
from netopt_cli.text_splits import Fraction, TextOptions, Texts, assemble_texts

CLASS_NAMES = ("negative", "positive")
_FOLDERS = ("neg", "pos")


def load(
    seed: int,
    *,
    path: str | None = None,
    text: TextOptions,
    validation_fraction: Fraction = 0.1,
    train_limit: SampleLimit | None = None,
    labels_per_class: SampleLimit | None = None,
) -> Dataset:
    """Loads 25,000 + 25,000 reviews.

    Source: Maas et al. 2011, Learning word vectors for sentiment analysis.

    Args:
        seed: Of the validation split and of `train_limit` and of `labels_per_class`.
        path: The folder `aclImdb` of the original archive, with `train/pos/*.txt` and so on; when
            None, `keras.datasets` is asked, whose texts have no capitals and no punctuation.
        text: See `text.train_encoder`.

    Raises:
        DataError: The data cannot be had or are malformed.
    """
    if path is not None:
        root = require_folder(path)
        train, test = _read(root / "train"), _read(root / "test")
    else:
        import keras

        train, test = keras_texts(
            "IMDb",
            keras.datasets.imdb,
            "By hand: unpack aclImdb_v1.tar.gz and give data.path= its folder aclImdb.",
        )
    return assemble_texts(
        "imdb",
        train=train,
        test=test,
        class_names=CLASS_NAMES,
        seed=seed,
        text=text,
        validation_fraction=validation_fraction,
        test_fraction=0.5,
        train_limit=train_limit,
        labels_per_class=labels_per_class,
    )


def _read(folder: Path) -> Texts:
    texts: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(_FOLDERS):
        files = sorted(require_folder(folder / name).glob("*.txt"))
        if not files:
            raise DataError(f"{folder / name} has no .txt file")
        for file in files:
            try:
                texts.append(file.read_text(encoding="utf-8").replace("<br />", " "))
            except UnicodeDecodeError as error:
                raise DataError(f"{file} is not UTF-8: {error}") from error
        labels += [label] * len(files)
    return texts, np.array(labels, np.int32)
