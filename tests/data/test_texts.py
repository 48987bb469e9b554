"""Texts: CSV files as people write them, vocabularies, and runs of the four archs over texts."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from command_line import CommandLine
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from netopt_cli.data import imdb, reuters, text_csv
from netopt_cli.errors import DataError
from netopt_cli.text import TextEncoder, train_encoder

GOOD = ("a moving film", "bright and funny", "truly great acting", "warm, wise and moving")
BAD = ("a dull film", "flat and tired", "truly awful acting", "cold, dumb and dull")
OPTIONS = {
    "unit": "word", "vocabulary": 200, "least_count": 1, "length": 8, "lowercase": True,
    "word_ngrams": 1, "character_ngrams": (0, 0), "buckets": 50,
}  # fmt: skip
TINY = [
    "train.epochs=6", "train.learning_rate=0.02", "train.batch_size=16", "data.text.length=8",
    "data.text.least_count=1", "data.text.buckets=50", "target.warmup_runs=1",
    "target.timed_runs=30",
]  # fmt: skip


def write_csv(file: Path, rows: list[tuple[str, str]], encoding: str = "utf-8") -> Path:
    with file.open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return file


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    rows = [(text, "good") for text in GOOD * 12] + [(text, "bad") for text in BAD * 12]
    return write_csv(tmp_path / "reviews.csv", rows)


def load(path: Path, **settings: object) -> object:
    return text_csv.load(0, path=str(path), text=OPTIONS, **settings)


def test_cells_may_be_quoted_and_go_over_lines(tmp_path: Path) -> None:
    strange = 'He said: "no",\nand left; ça va — 很好 \U0001f600'
    rows = [(strange, "good"), (GOOD[1], "good"), (BAD[0], "bad"), (BAD[1], "bad")] * 5
    data = load(write_csv(tmp_path / "a.csv", rows))
    assert (data.classes, data.class_names) == (2, ("bad", "good"))
    assert data.train.x.dtype == np.int32 and data.shape == (8,)
    assert data.train.x.max() < data.inputs.fields[0].vocabulary
    words = data.reader.encoder.tokenizer.get_vocab()
    assert {"said", "ça", "很好", '"', "—"} <= words.keys()
    assert data.fingerprint == load(write_csv(tmp_path / "b.csv", rows)).fingerprint


def test_the_vocabulary_is_of_the_training_split_alone(reviews: Path, tmp_path: Path) -> None:
    test = write_csv(tmp_path / "test.csv", [("zebra film", "good"), ("zebra dull", "bad")])
    data = load(reviews, test_path=str(test))
    assert "zebra" not in data.reader.encoder.tokenizer.get_vocab()
    assert (data.test.x[:, 0] == 1).all() and (data.test.x[:, 1] > 1).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,label\ngood,a\n caf\xe9 ,b\n", r"line 3: byte 0xe9 is not utf-8.*cp1252"),
        (b"text,label\nfine,a\n,b\n", r"line 3: 'text' is empty"),
        (b'text,label\n"two\nlines",a\n  ,b\n', r"line 4: 'text' is empty"),
        (b"text,label\nfine,\n", r"line 2: 'label' is empty"),
        (b"text,label\nfine,a\nalone\n", r"line 3: 2 cells are needed.*Received: 1"),
        (b"texts,label\nfine,a\n", r"no column 'text'. Did you mean 'texts'"),
        (b"text,label\n", r"has no row after its first line"),
        (b"", r"no column 'text'"),
        (b"text,label\nfine,a\nbetter,a\nbest,a\ngood,a\nok,a\nyes,a\nso,a\nas,a\nit,a\nis,a\n",
         r"needs at least 2 classes"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_said_with_its_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "own.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(file)


def test_another_encoding_and_delimiter(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    lines = ["text;label", *["café au lait;a", "thé vert;b"] * 10]
    file.write_bytes("\n".join(lines).encode("cp1252"))
    data = load(file, encoding="cp1252", delimiter=";")
    assert "café" in data.reader.encoder.tokenizer.get_vocab()
    with pytest.raises(DataError, match=r"data\.encoding is unknown\. Received: klingon"):
        load(file, encoding="klingon")


@given(
    text=st.text(max_size=40),
    unit=st.sampled_from(["word", "character", "subword"]),
    ngrams=st.sampled_from([(1, (0, 0)), (2, (0, 0)), (3, (2, 4))]),
)
def test_an_encoder_comes_back_from_its_json(text: str, unit: str, ngrams: tuple) -> None:
    settings = OPTIONS | {"unit": unit, "word_ngrams": ngrams[0], "character_ngrams": ngrams[1]}
    encoder = train_encoder([*GOOD, *BAD], **settings)
    restored = TextEncoder.from_json(json.loads(json.dumps(encoder.to_json())))
    tokens = encoder([text])
    np.testing.assert_array_equal(tokens, restored([text]))
    assert tokens.shape == (1, 8) and tokens.min() >= 0 and tokens.max() < encoder.vocabulary
    padding = np.flatnonzero(tokens[0] == 0)
    assert (np.diff(padding) == 1).all(), "padding is at the end alone"


def test_ngrams_tell_the_order_of_words() -> None:
    plain, pairs = (
        train_encoder([*GOOD, *BAD], **OPTIONS | {"word_ngrams": most}) for most in (1, 2)
    )
    one, other = "film moving a", "a film moving"
    assert sorted(plain([one])[0]) == sorted(plain([other])[0])
    assert sorted(pairs([one])[0]) != sorted(pairs([other])[0])


def test_the_folders_of_imdb(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name, texts in (("neg", BAD), ("pos", GOOD)):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number, text in enumerate(texts * 3):
                (folder / f"{number}_7.txt").write_text(f"{text}<br />end")
    data = imdb.load(0, path=str(tmp_path), text=OPTIONS)
    assert (len(data.train) + len(data.validation), len(data.test)) == (24, 24)
    assert data.class_names == ("negative", "positive")
    (tmp_path / "train/pos/0_7.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"0_7\.txt is not UTF-8"):
        imdb.load(0, path=str(tmp_path), text=OPTIONS)


@pytest.mark.parametrize(
    ("module", "loader", "classes"),
    [(keras.datasets.imdb, imdb.load, 2), (keras.datasets.reuters, reuters.load, 46)],
)
def test_without_a_path_keras_is_asked(
    monkeypatch: pytest.MonkeyPatch, module: object, loader: Callable, classes: int
) -> None:
    x = [[1, 4, 5, 2, 6]] * 200
    y = np.arange(200) % classes
    monkeypatch.setattr(module, "load_data", lambda: ((x, y), (x, y)))
    monkeypatch.setattr(module, "get_word_index", lambda: {"the": 1, "oil": 2, "price": 3})
    data = loader(0, text=OPTIONS)
    assert data.classes == classes
    assert {"the", "oil", "price"} <= data.reader.encoder.tokenizer.get_vocab().keys()
    assert (data.test.x[0, :3] > 1).all() and data.test.x[0, 3] == 0


@pytest.mark.parametrize(
    "words",
    [
        ["arch=bag_of_embeddings", "data.text.word_ngrams=2", "opt=[prune,quantize]",
         "opt.prune.epochs=1"],
        pytest.param(
            ["arch=text_cnn", "arch.width=8", "arch.filters=6", "opt=[structured,quantize]",
             "opt.structured.epochs=1", "opt.structured.ratio=0.3"], marks=pytest.mark.slow),
        pytest.param(
            ["arch=transformer", "arch.width=16", "arch.depth=1", "arch.heads=4",
             "opt=[structured,lowrank,quantize]", "opt.structured.epochs=1",
             "opt.lowrank.epochs=1"], marks=pytest.mark.slow),
        pytest.param(
            ["arch=rnn", "arch.cell=gru", "arch.units=[8]", "arch.width=8",
             "opt=[distill,structured,quantize]", "arch@opt.distill.teacher=transformer",
             "opt.distill.epochs=1", "opt.distill.teacher_epochs=1", "opt.structured.epochs=1"],
            marks=pytest.mark.slow),
    ],
    ids=["bag_of_embeddings", "text_cnn", "transformer", "rnn"],
)  # fmt: skip
def test_an_arch_learns_is_compressed_and_answers_sentences(
    netopt: CommandLine, reviews: Path, words: list[str]
) -> None:
    ran = netopt("train", "data=text_csv", f"data.path={reviews}", *words, *TINY,
                 "control=false", "hydra.run.dir=run", "--quiet")  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    rows = json.loads((netopt.folder / "run/record.json").read_text())["rows"]
    first, *others = rows
    assert first["accuracy"] > 0.9
    # An unrolled graph of so few units takes more bytes than its weights: int8 need not be least.
    assert min(row["size_bytes"] for row in others) < first["size_bytes"]
    answered = netopt("predict", "run", "--stage", "baseline", "--json",
                      "--input", GOOD[0], "-i", BAD[3])  # fmt: skip
    said = [json.loads(line) for line in answered.stdout.splitlines()]
    assert [each["class"] for each in said] == ["good", "bad"], answered.stderr
    assert said[0]["input"] == GOOD[0] and 0.5 < said[0]["probability"] <= 1
    refused = netopt("predict", "run", "--input", str(reviews))
    assert (refused.returncode, f"--input - < {reviews}" in refused.stderr) == (2, True)
    refused = netopt("predict", "run", "--input", GOOD[0], "--input", " ")
    assert (refused.returncode, "number 2 of 2" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["arch=mlp"], "mlp needs samples of values. Received: text (tokens) of data=text_csv"),
        (["arch=text_cnn", "data=digits"], "text_cnn needs texts. Received: samples of values"),
        (["arch=rnn", "opt=adversarial"], "opt=adversarial cannot work here: it changes the"),
        (["arch=rnn", "data.text.word_ngrams=2"], "rnn reads tokens in their order"),
        (["arch=rnn", "task=regression"], "cannot be learned from these data"),
        (["arch=transformer", "arch.heads=5"], "arch.width must be a multiple of arch.heads"),
    ],
)
def test_what_does_not_go_together_is_refused_before_training(
    netopt: CommandLine, reviews: Path, words: list[str], message: str
) -> None:
    data = [] if "data=digits" in words else ["data=text_csv", f"data.path={reviews}"]
    ran = netopt("train", *data, *words, "hydra.run.dir=run")
    assert (ran.returncode, message in ran.stderr) == (2, True), ran.stderr
    assert not (netopt.folder / "run").exists()


def test_the_vocabulary_of_a_trained_encoder(reviews: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "film": 2}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=3)
    file = tmp_path / "tokenizer.json"
    tokenizer.save(str(file))
    data = text_csv.load(0, path=str(reviews), text=OPTIONS | {"tokenizer": str(file)})
    encoder = data.reader.encoder
    assert encoder.vocabulary == 3
    np.testing.assert_array_equal(encoder(["film zebra"]), [[2, 1, 0, 0, 0, 0, 0, 0]])
    tokenizer.add_tokens(["zebra"])
    tokenizer.save(str(file))
    other = text_csv.load(0, path=str(reviews), text=OPTIONS | {"tokenizer": str(file)})
    assert data.fingerprint != other.fingerprint, "another file of the same name is other data"
    Tokenizer(models.WordLevel({"the": 0, "[UNK]": 1}, "[UNK]")).save(str(file))
    with pytest.raises(DataError, match=r"padded with, as \[PAD\].*Received: 'the'"):
        text_csv.load(0, path=str(reviews), text=OPTIONS | {"tokenizer": str(file)})
    file.write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer.json is no tokenizer"):
        text_csv.load(0, path=str(reviews), text=OPTIONS | {"tokenizer": str(file)})
