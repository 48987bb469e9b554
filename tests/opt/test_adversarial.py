"""Adversarial training: it makes networks robust, in the units of the data, and goes on later."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from command_line import CommandLine
from stage_bench import Bench, apply

from netopt_cli.contracts import Network, Preflight
from netopt_cli.dataset import Dataset, Normalization
from netopt_cli.errors import InputError
from netopt_cli.graph.attacks import ball_of
from netopt_cli.graph.free_training import FreeTraining
from netopt_cli.measure.attacking import Attack, Samples
from netopt_cli.opt.adversarial import Adversarial
from netopt_cli.opt.prune import Prune

EPSILON = 0.15


def accuracy_under_attack(model: keras.Model, data: Dataset) -> float:
    samples = Samples(data.normalization.numpy(data.test.x), data.test.y)
    attack = Attack(ball_of(data, EPSILON), steps=10, step_size=EPSILON / 4, restarts=1)
    return attack(model, samples, seed=0).accuracy


@pytest.fixture
def hard(blobs_data: Dataset) -> Dataset:
    """Half of the contrast: what separates the classes is near ε."""

    def faded(source):
        return replace(source, x=(64 + source.x / 2).astype(np.uint8))

    splits = {name: faded(getattr(blobs_data, name)) for name in ("train", "validation", "test")}
    return Dataset(**vars(blobs_data) | splits)


@pytest.mark.parametrize(
    "method",
    ["pgd", *(pytest.param(m, marks=pytest.mark.slow) for m in ("fgsm", "free", "trades"))],
)
def test_each_method_makes_the_network_robust(method: str, hard: Dataset) -> None:
    bench = Bench(hard, epochs=20)
    plain = bench.fit(bench.fresh(), epochs=20)
    stage = Adversarial(method=method, epsilon=EPSILON, steps=4)
    robust = apply(stage, bench.fresh(), bench)
    before = accuracy_under_attack(plain.model, hard)
    assert accuracy_under_attack(robust.model, hard) > before + 0.1
    assert bench.restarts[-1] is True
    assert "38.25 in the values of the data" in bench.notes[0]


@pytest.mark.slow
def test_later_stages_go_on_against_the_attack_unless_told_otherwise(hard: Dataset) -> None:
    def robustness(**options) -> float:
        bench = Bench(hard, epochs=20)
        network = apply(Adversarial(epsilon=EPSILON, steps=4, **options), bench.fresh(), bench)
        pruned = apply(Prune(sparsity=0.5, epochs=15), network, bench)
        return accuracy_under_attack(pruned.model, hard)

    assert robustness(keep=True) > robustness(keep=False) + 0.05


def test_without_epochs_of_its_own_the_next_stage_trains_against_it(hard: Dataset) -> None:
    bench = Bench(hard)
    network = apply(Adversarial(epochs=0, method="trades"), bench.fresh(), bench)
    assert bench.results == [] and len(network.keeps) == 1


@pytest.mark.parametrize(
    "normalization",
    [Normalization(0.0, 1 / 255), Normalization(np.float32([100]), np.float32([0.02])),
     Normalization(50.0, -0.1)],
)  # fmt: skip
def test_the_ball_is_that_of_the_pixels_whatever_the_normalization(
    normalization: Normalization, blobs_data: Dataset
) -> None:
    data = Dataset(**vars(blobs_data) | {"normalization": normalization})
    ball = ball_of(data, 0.2)
    raw = np.full((1, 4, 4, 1), 30.0)
    x = tf.constant(normalization.numpy(raw))
    ends = [ball.project(x + far, x).numpy() for far in (-1e3, 1e3)]
    back = sorted(
        float(np.mean(end / normalization.multiply + normalization.subtract)) for end in ends
    )
    assert back == pytest.approx([0.0, 30 + 51], abs=1e-2)  # black ends it, ε the other way


def test_free_training_replays_each_batch_and_moves_within_the_ball(blobs_data: Dataset) -> None:
    ball = ball_of(blobs_data, 0.1)
    free = FreeTraining(ball, (4, 4, 1), 3, replays=2)
    seed, y = tf.constant([0, 0]), tf.eye(3)[:2]
    batches = [tf.fill((2, 4, 4, 1), value) for value in (0.2, 0.5, 0.05)]
    seen = []
    for x in batches:
        moved, _ = free.perturb(x, y, seed)
        seen.append(float(moved[0, 0, 0, 0]))
        free.move(-tf.ones_like(x))
    # The second batch is the first one again, perturbed; the third is new and stops at black.
    assert seen == pytest.approx([0.2, 0.1, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 8}, r"fraction of the range .* that would be epsilon=0.03137"),
        ({"epsilon": 0.0}, r"epsilon must be in \(0, 1\]"),
        ({"epochs": 0, "keep": False}, "needs keep=true"),
    ],
)
def test_wrong_values_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adversarial(**options)


def test_it_does_not_start_over_behind_other_stages() -> None:
    network = Network(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
    before = Preflight("adversarial", network, is_first=False, build=lambda arch: network)
    with pytest.raises(InputError, match="put it first"):
        Adversarial(start="scratch").plan(before)


TINY = [
    "arch=mlp", "arch.hidden=[24]", "train.epochs=2", "data.train_limit=300",
    "target.warmup_runs=2", "target.timed_runs=30",
]  # fmt: skip


@pytest.mark.slow
def test_from_the_command_line_with_pruning_and_the_table(netopt: CommandLine) -> None:
    done = netopt(
        "train", *TINY, "opt=[adversarial,prune]", "opt.adversarial.steps=2", "opt.prune.epochs=1",
        "robustness=standard", "robustness.steps=3", "robustness.samples=60", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *_, report, folder = done.stdout.splitlines()
    rows = json.loads(report)["robustness"]
    assert [row["stage"] for row in rows if row["role"] != "control"] == [
        "baseline", "adversarial", "prune",
    ]  # fmt: skip
    for row in rows:
        assert row["samples"] == 60 and row["epsilon"] == 0.1
        assert row["pgd"] <= row["clean"]
    assert (netopt.folder / folder / "robustness.csv").exists()
    assert "doubtful" in (netopt.folder / folder / "robustness.md").read_text()


@pytest.mark.slow
def test_free_training_on_replicas(netopt: CommandLine) -> None:
    done = netopt.alone(
        "train", *TINY, "opt=adversarial", "opt.adversarial.method=free", "--quiet",
        "target=mirrored", "target.device=cpu", "target.replicas=2", "control=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_an_epsilon_beyond_the_range_is_wrong_input(netopt: CommandLine) -> None:
    for words in (["opt=adversarial", "opt.adversarial.epsilon=25.5"],
                  ["robustness=standard", "robustness.epsilon=25.5"]):  # fmt: skip
        done = netopt("train", *TINY, *words)
        assert done.returncode == 2
        assert "epsilon must be in (0, 1]" in done.stderr and "epsilon=0.1." in done.stderr
