"""Every YAML of every group: found by itself, composed, bound, built and run for one tiny step."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import keras
import made_data
import numpy as np
import pytest
import tensorflow as tf
from hydra.utils import get_class
from omegaconf import OmegaConf
from rating_file import write_ratings
from rich.console import Console
from wav_files import spoken_words

from netopt_cli import catalog, experiment
from netopt_cli.assembly import assemble
from netopt_cli.components import build
from netopt_cli.config import compose
from netopt_cli.contracts import Target
from netopt_cli.dataset import ArraySource, Dataset, Normalization
from netopt_cli.engine.settings import TrainSettings
from netopt_cli.errors import TargetError
from netopt_cli.inputs import Field, Inputs
from netopt_cli.networks import build_network
from netopt_cli.preparation import load_data
from netopt_cli.tables import COLUMNS
from netopt_cli.task.anomaly import Anomaly
from netopt_cli.task.detection import Detection
from netopt_cli.task.segmentation import Segmentation
from netopt_cli.task.verification import Verification
from netopt_cli.tasks import Task

FOLDERS = catalog.config_folders()
TINY = [
    "arch=mlp", "arch.hidden=[8]", "train.epochs=1", "train.steps_per_call=5",
    "data.train_limit=150", "target.warmup_runs=2", "target.timed_runs=30",
    "control=false",
]  # fmt: skip
TINY_CNN = ["arch=cnn", "arch.filters=[4,4]", "arch.residual=true"]
NEEDS_CONVOLUTIONS = {
    "lighten", "conditional_convolution", "dynamic_depth", "stochastic_depth",
}  # fmt: skip

FEW_LABELS = {
    "fixmatch": [],
    "simclr": ["opt.simclr.pretrain_epochs=1"],
    "pseudo_label": ["opt.pseudo_label.threshold=0", "opt.pseudo_label.balanced=false"],
    "active": ["opt.active.labels=10", "opt.active.rounds=2"],
}
NEEDS_EMBEDDINGS = {"hash_embeddings", "rare_rows"}


def choices(group: str) -> list[str]:
    return sorted(catalog.choices(group, FOLDERS))


def test_every_group_has_choices_with_a_description() -> None:
    groups = catalog.groups(FOLDERS)
    assert {"arch", "data", "debug", "experiment", "opt", "target", "train"} <= set(groups)
    for group in groups:
        for name, path in catalog.choices(group, FOLDERS).items():
            assert len(catalog.description(path)) > 20, f"{group}/{name} needs a first comment"


@pytest.fixture(scope="module")
def images() -> Dataset:
    """Noise of the shape of CIFAR: large enough for every arch."""
    random = np.random.default_rng(0)
    split = ArraySource(
        random.integers(0, 256, (8, 32, 32, 3), np.uint8), np.arange(8, dtype=np.int32) % 4
    )
    return Dataset(
        "noise", (32, 32, 3), 4, tuple("abcd"), split, split, split, Normalization(0, 1 / 255),
        None, "",
    )  # fmt: skip


ARCH_NEEDS = {
    "keras_model": lambda folder: [f"arch.path={saved_model(folder)}"],
    "text_encoder": lambda folder: [f"arch.path={saved_encoder(folder)}"],
}


def saved_model(folder: Path) -> Path:
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    path = folder / "own.keras"
    keras.Model(inputs, keras.layers.Dense(4)(x)).save(path)
    return path


def saved_encoder(folder: Path) -> Path:
    tokens = keras.Input((None,), dtype="int32", name="token_ids")
    mask = keras.Input((None,), dtype="int32", name="padding_mask")
    x = keras.layers.Embedding(20, 8)(tokens) * keras.ops.cast(mask, "float32")[..., None]
    path = folder / "encoder.keras"
    keras.Model({"token_ids": tokens, "padding_mask": mask}, keras.layers.Dense(8)(x)).save(path)
    return path


@pytest.fixture(scope="module")
def texts() -> Dataset:
    random = np.random.default_rng(0)
    x = random.integers(1, 20, (8, 12), np.int32) * (np.arange(12) < 9)
    split = ArraySource(x.astype(np.int32), np.arange(8, dtype=np.int32) % 4)
    return Dataset(
        "texts", (12,), 4, tuple("abcd"), split, split, split, Normalization(dtype="int32"), None,
        "", inputs=Inputs((Field("text", "tokens", (12,), 20),)),
    )  # fmt: skip


def noise(task: Task, shape: tuple[int, ...], y: np.ndarray) -> Dataset:
    """Samples without meaning for a task."""
    x = np.random.default_rng(0).integers(0, 256, (len(y), *shape), np.uint8)
    return assemble("noise", train=(x, y), validation=(x, y), test=(x, y), seed=0, task=task)


def of_fields() -> Dataset:
    inputs = Inputs((Field("image", "values", (8, 8, 1), multiply=1 / 255),
                     Field("text", "tokens", (3,), 9), Field("age", "values", (1,)),
                     Field("who", "ids", (1,), 5)))  # fmt: skip
    x = np.random.default_rng(0).integers(0, 5, (8, 69), np.int32)
    split = (x, np.arange(8) % 4)
    return assemble("fields", train=split, validation=split, test=split, seed=0, inputs=inputs)


ALTERNATELY = np.arange(8) % 2
BOXES = np.tile(np.float32([[1, 0.1, 0.1, 0.6, 0.7], [-1, 0, 0, 0, 0]]), (8, 1, 1))
OF_TASKS: dict[str, Callable[[], Dataset]] = {
    "autoencoder": lambda: noise(Anomaly(), (8, 8, 1), ALTERNATELY * (np.arange(8) > 3)),
    "siamese": lambda: noise(Verification(pairs_a_sample=1), (8, 8, 1), ALTERNATELY),
    "unet": lambda: noise(Segmentation(), (8, 8, 1), np.arange(512).reshape(8, 8, 8) % 3),
    "ssd": lambda: noise(Detection(strides=(4, 8)), (16, 16, 1), BOXES),
    "fusion": of_fields,
}
"""Archs for samples, or for outputs, of a kind of their own."""

FOR_TEXTS = {"bag_of_embeddings", "rnn", "text_cnn", "text_encoder", "transformer"}
FOR_TEXTS_ALONE = {"bag_of_embeddings", "text_cnn", "text_encoder"}


@pytest.fixture(scope="module")
def ratings() -> Dataset:
    random = np.random.default_rng(0)
    user, history = np.arange(8)[:, np.newaxis], random.integers(2, 6, (8, 5))
    x = np.concatenate([user, history * (np.arange(5) < 4)], axis=1).astype(np.int32)
    split = ArraySource(x, np.arange(8, dtype=np.int32) % 4)
    fields = (Field("user", "ids", (1,), 8), Field("history", "tokens", (5,), 6))
    return Dataset(
        "ratings", (6,), 4, tuple("abcd"), split, split, split, Normalization(dtype="int32"), None,
        "", inputs=Inputs(fields),
    )  # fmt: skip


FOR_RATINGS = {"dlrm", "history_autoencoder", "matrix_factorization", "neumf", "two_tower"}
NOT_FOR_VALUES = FOR_TEXTS_ALONE | FOR_RATINGS


@pytest.mark.parametrize(
    "name", [n for n in choices("arch") if n not in {*NOT_FOR_VALUES, *OF_TASKS}]
)
def test_arch(name: str, images: Dataset, tmp_path: Path) -> None:
    check_arch(name, images, tmp_path)


@pytest.mark.parametrize("name", sorted(FOR_TEXTS))
def test_arch_of_texts(name: str, texts: Dataset, tmp_path: Path) -> None:
    check_arch(name, texts, tmp_path)


@pytest.mark.parametrize("name", sorted(OF_TASKS))
def test_arch_of_a_task(name: str, tmp_path: Path) -> None:
    check_arch(name, OF_TASKS[name](), tmp_path)


@pytest.mark.parametrize("name", sorted(FOR_RATINGS))
def test_arch_of_ratings(name: str, ratings: Dataset, tmp_path: Path) -> None:
    check_arch(name, ratings, tmp_path)


def check_arch(name: str, data: Dataset, tmp_path: Path) -> None:
    needs = ARCH_NEEDS.get(name, lambda folder: [])(tmp_path)
    cfg = compose([f"arch={name}", *needs])
    arch = build(cfg.arch, allow=(), where="arch", partial=True)
    model = build_network(arch, data).model
    x, y = next(data.normalized_batches(data.train, 8))
    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        targets = data.task.targets(tf.constant(x), tf.constant(y), data.classes)
        loss = tf.reduce_mean(data.task.losses(targets, logits))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    assert len(logits) == len(x)
    assert np.isfinite(logits.numpy()).all()
    assert all(g is not None for g in gradients), "a weight that the loss does not depend on"
    assert not np.allclose(logits.numpy().sum(-1), 1), "logits are wanted, not probabilities"
    restored = saved_and_loaded(model, tmp_path)
    np.testing.assert_allclose(
        restored(x, training=False), model(x, training=False), rtol=1e-4, atol=1e-5
    )


def saved_and_loaded(model: keras.Model, folder: Path) -> keras.Model:
    path = folder / "saved.keras"
    model.save(path)
    return keras.saving.load_model(path, compile=False)


@pytest.mark.parametrize("name", [name for name in choices("opt") if name != "none"])
def test_opt(name: str, tmp_path: Path) -> None:
    tiny = [*TINY_CNN, *TINY[2:]] if name in NEEDS_CONVOLUTIONS else TINY
    arch = ["arch=rnn", "arch.units=[8]", *TINY[2:]] if name == "adaptive_time" else tiny
    if name in NEEDS_EMBEDDINGS:
        texts = ["data=text_csv", f"data.path={text_csv(tmp_path)}", "data.text.length=4"]
        arch = ["arch=bag_of_embeddings", *texts, *TINY[2:]]
        tmp_path = tmp_path / "run"
        tmp_path.mkdir()
    cfg = compose([f"opt={name}", *arch, *opt_needs(name)])
    result = experiment.run(
        cfg, tmp_path, allow=(), command=["test"], messages=Console(quiet=True), quiet=True
    )
    assert next(row["role"] for row in result.rows) == "baseline"
    last = result.rows[-1]
    assert (last["stage"], last["role"]) == (name, "stage")
    assert set(last) == {*COLUMNS, "metric"}
    assert 0 <= last["accuracy"] <= 1 and last["size_bytes"] > 0 and last["parity_max_abs"] >= 0
    assert list(tmp_path.glob(f"*-{name}/model.keras")) and list(tmp_path.glob("*/model.tflite"))


@pytest.mark.parametrize("name", choices("opt"))
def test_the_choices_of_an_opt_are_those_that_its_comments_name(name: str) -> None:
    file = catalog.find("opt", name, FOLDERS)
    types = get_type_hints(get_class(OmegaConf.load(file)["_target_"])) if name != "none" else {}
    for line in file.read_text().splitlines():
        key, _, comment = line.partition("#")
        key = key.partition(":")[0]
        alternatives = [t for t in (types.get(key), *get_args(types.get(key)))
                        if get_origin(t) is Literal]  # fmt: skip
        first, *others = comment.split(" | ")
        if alternatives and others:
            values = {str(value) for value in get_args(alternatives[0])}
            assert {part.split()[0].rstrip(":,") for part in others} < values, line
            assert values & set(re.split(r"[\s:]+", first)), line
            assert all(value in comment for value in values), line


def opt_needs(name: str) -> list[str]:
    """Shortens the stages that have epochs of their own."""
    node = OmegaConf.load(catalog.find("opt", name, FOLDERS))
    overrides = [f"opt.{name}.epochs=1"] if "epochs" in node else []
    if name == "early_exit":
        overrides += ["arch.hidden=[8,8]"]  # An exit after the first.
    if name == "share":
        overrides += ["arch.hidden=[8,8,8]"]  # Two equal layers, of 8 × 8.
    if name in FEW_LABELS:
        overrides += ["data.labels_per_class=5", *FEW_LABELS[name]]
    if "teacher_epochs" in node:
        overrides += [f"opt.{name}.teacher=mlp", f"opt.{name}.teacher_epochs=1"]
    return overrides


def idx_files(folder: Path) -> Path:
    for part, count in (("train", 60), ("t10k", 20)):
        images = np.zeros((count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = np.array([0x803, count, 28, 28], ">u4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = np.array([0x801, count], ">u4").tobytes()
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return folder


def cifar_files(folder: Path, *, coarse: int) -> Path:
    classes = 100 if coarse else 10
    batches = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    names = ["train", "test"] if coarse else batches
    for name in names:
        count = classes * 4
        rows = np.zeros((count, 1 + coarse + 3072), np.uint8)
        rows[:, coarse] = np.arange(count) % classes
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    return folder


def npz_file(folder: Path) -> Path:
    y = np.arange(40) % 4
    np.savez(folder / "own.npz", x_train=np.zeros((40, 5)), y_train=y,
             x_test=np.zeros((40, 5)), y_test=y)  # fmt: skip
    return folder / "own.npz"


def image_folder(folder: Path) -> Path:
    for label in ("cat", "dog"):
        (folder / label).mkdir()
        for index in range(20):
            image = tf.io.encode_png(np.full((6, 6, 3), 10 * index, np.uint8)).numpy()
            (folder / label / f"{index}.png").write_bytes(image)
    return folder


def text_csv(folder: Path) -> Path:
    rows = ["text,label", *["a fine film,good", "a dull film,bad"] * 10]
    (folder / "own.csv").write_text("\n".join(rows))
    return folder / "own.csv"


def imdb_folders(folder: Path) -> Path:
    for part in ("train/pos", "train/neg", "test/pos", "test/neg"):
        (folder / part).mkdir(parents=True)
        for index in range(10):
            (folder / part / f"{index}_7.txt").write_text("a fine film")
    return folder


DATA_WRITERS = {
    "ratings": write_ratings,
    "imdb": imdb_folders,
    "text_csv": text_csv,
    "mnist": idx_files,
    "fashion_mnist": idx_files,
    "cifar10": lambda folder: cifar_files(folder, coarse=0),
    "cifar100": lambda folder: cifar_files(folder, coarse=1),
    "npz": npz_file,
    "image_folder": image_folder,
    "audio_folder": lambda folder: spoken_words(folder, clips=3),
    "coco_folder": lambda folder: made_data.coco_folder(folder, count=20),
    "npz_fields": made_data.fields_file,
}
DATA_NEEDS = {"npz_fields": ["data.fields={image:values,text:tokens}"]}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Keras would download."""
    reuters, x, y = keras.datasets.reuters, [[1, 4, 5]] * 100, np.arange(100) % 46
    monkeypatch.setattr(reuters, "load_data", lambda: ((x, y), (x, y)))
    monkeypatch.setattr(reuters, "get_word_index", lambda: {"the": 1, "oil": 2})


@pytest.mark.parametrize("name", choices("data"))
def test_data(name: str, tmp_path: Path, no_network: None) -> None:
    writer = DATA_WRITERS.get(name)
    needs = [f"data.path={writer(tmp_path)}"] if writer else []
    cfg = compose([f"data={name}", *needs, *DATA_NEEDS.get(name, [])])
    data = load_data(cfg, ())
    assert len(data.class_names) >= 2
    assert min(len(data.train), len(data.validation), len(data.test)) > 0
    x, y = next(data.normalized_batches(data.train, 5))
    assert x.dtype == data.inputs.dtype and x.shape == (5, *data.shape)
    if data.task.is_classification:
        assert data.classes == len(data.class_names)
        assert y.dtype == np.int32 and y.min() >= 0 and y.max() < data.classes
    again = load_data(cfg, ())
    assert data.fingerprint == again.fingerprint


@pytest.mark.parametrize("name", choices("train"))
def test_train(name: str) -> None:
    settings = build(compose([f"train={name}"]).train, allow=(), where="train")
    assert isinstance(settings, TrainSettings)


@pytest.mark.parametrize("name", choices("target"))
def test_target(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    cfg = compose([f"target={name}"])
    try:
        target = build(cfg.target, allow=(), where="target")
    except TargetError as error:
        # Hardware that is not there is said, never replaced.
        assert name in str(error)
        assert name != "cpu"
    else:
        assert isinstance(target, Target) and target.name == name


PRESETS_OF_A_FILE = (
    "tfmot_job", "distill_few_samples", "distill_missing_class", "distill_mlp", "branchy_lenet",
    "lora_shifted", "keywords_ds_cnn", "keywords_gru", "ml100k", "reviews_bag", "reviews_gru",
    "reviews_text_cnn", "reviews_transformer",
)  # fmt: skip
PRESET_NEEDS = {name: ["data.path=digits.npz"] for name in PRESETS_OF_A_FILE}


@pytest.mark.parametrize("group", ["experiment", "debug"])
def test_presets_compose_and_bind(group: str) -> None:
    for name in choices(group):
        cfg = compose([f"{group}={name}", *PRESET_NEEDS.get(name, [])])
        build(cfg.train, allow=(), where="train")
        build(cfg.arch, allow=(), where="arch", partial=True)
        for stage, node in cfg.opt.items():
            build(node, allow=(), where=f"opt.{stage}")


def test_stages_can_be_pickled_for_launchers() -> None:
    cfg = compose(["opt=prune"])
    stage = build(cfg.opt.prune, allow=(), where="opt.prune")
    assert pickle.loads(pickle.dumps(stage)) == stage
