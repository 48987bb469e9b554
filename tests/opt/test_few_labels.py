"""Stages that learn with few labels: what they learn from, what they read, what they refuse."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from command_line import CommandLine
from stage_bench import Bench, apply

from netopt_cli.assembly import assemble
from netopt_cli.augment import augmentation
from netopt_cli.contracts import Forward, Network, Preflight
from netopt_cli.dataset import NO_LABEL, Dataset, FileSource, Normalization
from netopt_cli.errors import InputError
from netopt_cli.few_labels import random_samples
from netopt_cli.graph.contrastive import nt_xent, representation, two_views
from netopt_cli.graph.thresholds import AdaptiveThreshold, FixedThreshold
from netopt_cli.opt.active import Active
from netopt_cli.opt.fixmatch import FixMatch, aligned
from netopt_cli.opt.pseudo_label import PseudoLabel
from netopt_cli.opt.simclr import SimClr
from netopt_cli.target import cpu

STRONG = {"cutout_fraction": 0.5}
STAGES = {
    "adaptive fixmatch": FixMatch(
        strong=STRONG, threshold="adaptive", align=True, unlabeled_ratio=2, epochs=1
    ),
    "fixmatch": FixMatch(strong=STRONG, threshold=0.3, unlabeled_ratio=2, epochs=1),
    "simclr": SimClr(views=STRONG, pretrain_epochs=1, epochs=1),
    "pseudo_label": PseudoLabel(threshold=0.2, balanced=False, rounds=2, epochs=1),
}


@pytest.fixture
def data(blobs_data: Dataset) -> Dataset:
    """Blobs of which two of each class have their label."""
    splits = {name: getattr(blobs_data, name) for name in ("train", "validation", "test")}
    pairs = {name: (split.x, split.y) for name, split in splits.items()}
    return assemble("blobs", **pairs, seed=0, labels_per_class=2)


def weights_after(stage, data: Dataset) -> list[np.ndarray]:
    bench = Bench(data, epochs=1)
    return apply(stage, bench.fresh(), bench).model.get_weights()


def differ(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return any((a != b).any() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_learns_from_the_samples_and_never_reads_their_labels(
    name: str, data: Dataset
) -> None:
    stage = STAGES[name]
    found = weights_after(stage, data)
    assert (data.unlabeled.y == NO_LABEL).all()
    other_labels = replace(data, hidden_labels=(data.hidden_labels + 1) % 3)
    assert not differ(found, weights_after(stage, other_labels))
    darker = replace(data.unlabeled, x=data.unlabeled.x // 2)
    assert differ(found, weights_after(stage, replace(data, unlabeled=darker)))


@pytest.mark.parametrize("name", STAGES)
def test_the_control_has_the_labelled_samples_alone_and_as_many_steps(
    name: str, data: Dataset
) -> None:
    bench = Bench(data, epochs=1)
    apply(STAGES[name], bench.fresh(), bench)
    own, of_control = bench.used[0]
    labeled = {x.tobytes() for x in data.train.x}
    assert {x.tobytes() for x in of_control.train.x} == labeled
    assert len(own.train) == len(of_control.train) > len(data.train)
    assert set(of_control.train.y) == {0, 1, 2}


def test_a_zero_label_counts_for_nothing(data: Dataset) -> None:
    """All samples without label: the weights stay as they are."""
    none = replace(data, train=replace(data.train, y=np.full_like(data.train.y, NO_LABEL)))
    bench = Bench(none)
    network = bench.fresh()
    before = network.model.get_weights()
    bench.fit(network, epochs=2)
    assert not differ(before, network.model.get_weights())
    assert all(epoch.loss == epoch.score == 0 for epoch in bench.results[0].epochs)


def test_fixmatch_teaches_what_is_sure_alone(data: Dataset) -> None:
    stage = FixMatch(strong=STRONG, threshold=0.9, unlabeled_ratio=2)
    modifier = stage._consistency(data, FixedThreshold(0.9, data.classes))
    x, y = np.zeros((2, 4, 4, 1), np.float32), np.eye(3, dtype=np.float32)[:2]
    x, y = modifier.transform_batch(tf.constant(x), tf.constant(y), tf.constant([0, 1]))
    assert x.shape == (2 + 4 + 4, 4, 4, 1)
    assert (y.numpy()[:2] == np.eye(3)[:2]).all() and (y.numpy()[2:] == 0).all()
    assert len(np.unique(x.numpy()[2:6], axis=0)) > 1, "not one sample again and again"

    def loss(sure: float) -> float:
        weak = np.array([[sure, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]], np.float32)
        logits = tf.constant(np.concatenate([np.zeros((2, 3)), weak, np.zeros((4, 3))]), tf.float32)
        return float(modifier.extra_loss(Forward(x, y, logits, (), tf.constant([0, 1]))))

    assert loss(1.0) == 0.0
    assert loss(9.0) == pytest.approx(np.log(3) / 4)


def test_adaptive_thresholds_follow_what_the_network_is_sure_of() -> None:
    threshold = AdaptiveThreshold(3)
    np.testing.assert_allclose(threshold().numpy(), 1 / 3, rtol=1e-6)
    said = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1]], np.float32)
    threshold.follow(tf.constant(said))
    sureness, mean = (0.99 * 1 / 3 + 0.01 * new for new in (0.7, said.mean(axis=0)))
    np.testing.assert_allclose(threshold().numpy(), sureness * mean / mean.max(), rtol=1e-5)
    for _ in range(1000):
        threshold.follow(tf.constant(said))
    np.testing.assert_allclose(threshold().numpy(), [0.7, 0.2, 0.1], rtol=1e-3)


def test_alignment_brings_predictions_to_the_frequency_of_the_labels(data: Dataset) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal([1.5, 0.0, -1.5], size=(2000, 3))
    said = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    wanted = np.array([0.2, 0.3, 0.5])
    found = aligned(tf.constant(said), tf.constant(wanted)).numpy()
    np.testing.assert_allclose(found.sum(axis=-1), 1.0, rtol=1e-6)
    away, now = (abs(each.mean(axis=0) - wanted).max() for each in (said, found))
    assert now < away / 3
    assert np.isfinite(aligned(tf.constant([[1.0, 0.0]]), tf.constant([0.5, 0.5])).numpy()).all()
    plain, weighed = (
        FixMatch(strong=STRONG, threshold=0.4, align=align, epochs=1) for align in (False, True)
    )
    assert differ(weights_after(plain, data), weights_after(weighed, data))


def test_fixmatch_says_how_sure_it_asked_to_be(data: Dataset) -> None:
    said = []
    for threshold in (0.4, "adaptive"):
        bench = Bench(data)
        stage = FixMatch(strong=STRONG, threshold=threshold, unlabeled_ratio=2, epochs=1)
        stage(bench.fresh(), bench)
        said.append(bench.notes[-1])
    assert said[0].startswith("surer than 0.4 of ")
    assert re.match(r"surer than 0\.\d+ to 0\.\d+, by class, of ", said[1])


def test_nt_xent_is_that_of_the_paper() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 5, 3))
    views = np.concatenate([first, second])
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    likeness = np.exp(views @ views.T / 0.5)
    losses = [
        -np.log(likeness[i, (i + 5) % 10] / (likeness[i].sum() - likeness[i, i])) for i in range(10)
    ]
    found = nt_xent(tf.constant(first, tf.float32), tf.constant(second, tf.float32), 0.5)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)


def test_contrastive_training_leaves_the_logits_alone(data: Dataset) -> None:
    bench = Bench(data)
    network = bench.fresh()
    before = {layer.name: layer.get_weights() for layer in network.model.layers}
    assert representation(network.model).shape == (None, 24)
    view = augmentation(**STRONG)
    with cpu.build().strategy.scope():
        contrast = two_views(network.model, view, size=8, temperature=0.5)
    bench.fit(network, epochs=2, modifiers=[contrast])
    after = {layer.name: layer.get_weights() for layer in network.model.layers}
    assert not differ(before["logits"], after["logits"])
    assert differ(before["dense_1"], after["dense_1"])


def test_pseudo_labels_are_balanced_and_sure(data: Dataset) -> None:
    bench = Bench(data, epochs=1)
    network = bench.fit(bench.fresh(), epochs=40)
    predicted = PseudoLabel(threshold=0.6)._predicted(network.model, data)
    counts = np.bincount(predicted.y, minlength=3)
    assert 0 < counts.min() == counts.max()
    everything = PseudoLabel(threshold=0.0, balanced=False)._predicted(network.model, data)
    assert len(everything) == len(data.unlabeled)
    none = PseudoLabel(threshold=0.9999999)
    kept = none(network, bench)
    assert kept is network and "the network stays as it is" in bench.notes[-1]


@pytest.mark.parametrize("query", ["entropy", "margin", "confidence"])
def test_the_least_sure_samples_are_labelled(
    query: str, data: Dataset, blobs_data: Dataset
) -> None:
    bench = Bench(data, epochs=1)
    network = bench.fit(bench.fresh(), epochs=40)
    x, _ = next(data.normalized_batches(data.unlabeled, 500))
    surest = tf.nn.softmax(network.model(x)).numpy().max(axis=-1)
    Active(query=query, labels=6, rounds=1)(network, bench)
    bought = {x.tobytes() for x in bench.data.train.x} - {x.tobytes() for x in data.train.x}
    is_bought = np.array([x.tobytes() in bought for x in data.unlabeled.x])
    assert is_bought.sum() == 6 and len(bench.data.unlabeled) == 188
    assert surest[is_bought].max() < np.median(surest)
    known = blobs_data.train
    by_content = {x.tobytes(): y for x, y in zip(known.x, known.y, strict=True)}
    assert [by_content[x.tobytes()] for x in bench.data.train.x] == bench.data.train.y.tolist()


def test_samples_are_drawn_from_files_as_from_arrays(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 1), np.uint8)
    paths = []
    for index, image in enumerate(x):
        paths.append(str(tmp_path / f"{index}.png"))
        Path(paths[-1]).write_bytes(tf.io.encode_png(image).numpy())
    source = FileSource(np.array(paths), np.full(3, NO_LABEL, np.int32), (5, 4, 1))
    drawn = tf.function(random_samples(source, Normalization()))(
        tf.constant(20), tf.constant([1, 2])
    )
    assert {image.tobytes() for image in drawn.numpy()} == {
        image.tobytes() for image in x.astype(np.float32)
    }


def preflight(bench: Bench, network: Network | None = None, unlabeled: int = 120) -> Preflight:
    return Preflight("few", network or bench.fresh(), True, bench.build, unlabeled=unlabeled)


@pytest.mark.parametrize(
    ("stage", "given", "message"),
    [
        *((stage, {"unlabeled": 0}, "all have theirs: give a label budget, as data.labels_per_")
          for stage in (*STAGES.values(), Active())),
        (FixMatch(), {}, "opt.few.strong switches nothing on"),
        (SimClr(), {}, "opt.few.views switches nothing on"),
        (Active(labels=120), {}, "must be less than the 120 samples without label"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(stage, given: dict, message: str, bench: Bench) -> None:
    with pytest.raises(InputError, match=message):
        stage.plan(preflight(bench, **given))
    with pytest.raises(ValueError, match="labels must be >= rounds"):
        Active(labels=2, rounds=3)


FAST = (
    "arch=mlp", "arch.hidden=[12]", "arch.normalization=batch", "data=digits",
    "data.labels_per_class=3", "train.epochs=2", "train.batch_size=20", "target.timed_runs=10",
    "target.warmup_runs=1", "hydra.run.dir=run",
)  # fmt: skip


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return {f"{row['stage']} {row['role']}": row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_stages_combine_and_the_labels_are_a_column(netopt: CommandLine) -> None:
    words = (
        "train", *FAST, "opt=[active,fixmatch,structured,quantize]", "opt.active.labels=7",
        "opt.active.rounds=2", "opt.fixmatch.epochs=1", "opt.fixmatch.keep=true",
        "opt.structured.epochs=1",
    )  # fmt: skip
    planned = netopt(*words, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    done = netopt(*words)
    assert done.returncode == 0, done.stderr
    assert "30 train, 1,264 without label" in done.stderr
    found = rows(netopt.folder / "run")
    labels = {name: row["labels"] for name, row in found.items()}
    assert labels.pop("baseline baseline") == "30"
    assert len(labels) > 4 and set(labels.values()) == {"37"}
    assert found["active control"]["loss"] != found["active stage"]["loss"]
    assert found["quantize stage"]["control"] == "structured control"
    assert "| stage | labels |" in (netopt.folder / "run" / "metrics.md").read_text()


def test_samples_that_are_no_images_are_refused_with_the_reason(netopt: CommandLine) -> None:
    generator = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = (generator.normal(size=(90, 6)) + 3 * np.eye(6)[y]).astype(np.float32)
    np.savez(netopt.folder / "own.npz", x_train=x, y_train=y, x_test=x[:30], y_test=y[:30])
    words = ("train", "arch=mlp", "arch.hidden=[8]", "data=npz", "data.path=own.npz",
             "train.epochs=20", "train.batch_size=6", "train.learning_rate=0.02",
             "data.labels_per_class=3", "control=false", *FAST[-3:])  # fmt: skip
    for opt in ("fixmatch", "simclr"):
        refused = netopt(*words, f"opt={opt}")
        assert refused.returncode == 2
        assert f"opt.{opt} compares augmented samples" in refused.stderr
        assert "Received: samples of shape (6,)" in refused.stderr
    done = netopt(*words, "opt=[pseudo_label]", "opt.pseudo_label.threshold=0.5")
    assert done.returncode == 0, done.stderr


def test_texts_have_a_budget_of_labels_too(netopt: CommandLine) -> None:
    films = "text,label\n" + "a fine moving film,good\na flat tired film,bad\n" * 40
    (netopt.folder / "films.csv").write_text(films)
    words = ("train", "arch=bag_of_embeddings", "data=text_csv", "data.path=films.csv",
             "train.epochs=8", "train.learning_rate=0.05", "data.labels_per_class=4",
             "control=false", *FAST[-3:])  # fmt: skip
    stages = ("opt=[active,pseudo_label]", "opt.active.labels=4", "opt.active.rounds=1")
    done = netopt(*words, *stages, "opt.pseudo_label.threshold=0.5")
    assert done.returncode == 0, done.stderr
    assert "8 train, 50 without label" in done.stderr
    found = rows(netopt.folder / "run")
    assert [row["labels"] for row in found.values()] == ["8", "12", "12"]
    refused = netopt(*words, "opt=fixmatch", "hydra.run.dir=other")
    assert refused.returncode == 2 and "compares augmented samples" in refused.stderr


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("200", "labels_per_class=200 is more than class"),
        ("0", "must be >= 1"),
    ],
)
def test_a_budget_that_the_data_have_not_is_refused(
    netopt: CommandLine, budget: str, message: str
) -> None:
    refused = netopt("train", *FAST, f"data.labels_per_class={budget}", "opt=fixmatch")
    assert refused.returncode == 2 and message in refused.stderr
    assert not (netopt.folder / "run" / "record.json").exists()
