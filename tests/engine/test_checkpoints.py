"""Trainings that are taken up again, or taken over from another run."""

import functools
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from netopt_cli.contracts import Modifier
from netopt_cli.dataset import Dataset
from netopt_cli.engine.checkpoints import Cache, Checkpoints, Snapshot
from netopt_cli.engine.settings import TrainSettings
from netopt_cli.engine.training import FitResult, fit
from netopt_cli.graph.averaging import moving_average, stochastic_average
from netopt_cli.graph.incremental_codebooks import incremental_codebooks
from netopt_cli.graph.masks import Masks, Unstructured
from netopt_cli.graph.ramp import ramp
from netopt_cli.graph.saliency import magnitude
from netopt_cli.progress import SilentReporter
from netopt_cli.target import cpu

Modifiers = Callable[[keras.Model], Sequence[Modifier]]
Undisturbed = Callable[[str], tuple[keras.Model, FitResult]]


class ControlC(SilentReporter):
    """Presses Ctrl-C when so many steps are done."""

    def __init__(self, at_step: int) -> None:
        self._at_step = at_step

    def steps_done(self, step: int, loss: float, accuracy: float) -> None:
        if step >= self._at_step:
            os.kill(os.getpid(), signal.SIGINT)


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    with cpu.build().strategy.scope():
        return keras.Sequential(
            [
                keras.Input((4, 4, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(16),
                keras.layers.BatchNormalization(),
                keras.layers.ReLU(),
                keras.layers.Dropout(0.2),
                keras.layers.Dense(3),
            ]
        )


def train(
    data: Dataset,
    folder: Path,
    modifiers: Modifiers = lambda model: (),
    *,
    observer: SilentReporter | None = None,
    cache: Cache | None = None,
    lineage: str = "",
    seed: int = 0,
    every_seconds: float = 1e9,
) -> tuple[keras.Model, FitResult]:
    model = network()
    settings = TrainSettings(epochs=4, batch_size=20, learning_rate=0.01, steps_per_call=3)
    result = fit(
        model,
        data,
        settings,
        target=cpu.build(),
        seed=seed,
        modifiers=modifiers(model),
        observer=observer or SilentReporter(),
        stage="test",
        checkpoints=Checkpoints(folder, every_seconds, cache),
        lineage=lineage,
    )
    return model, result


def pruning(model: keras.Model) -> Sequence[Modifier]:
    weights = [model.trainable_variables[0]]
    masks = Masks(weights, keep_zeros=False)
    pattern = Unstructured((((0,), 0.8),))

    def draw(so_far: Callable[[float], float]) -> None:
        masks.draw(pattern, magnitude(weights)(), so_far)

    return ramp(0.7, draw), Modifier("hold", constrain=masks.apply)


def incremental_codebook(model: keras.Model) -> Sequence[Modifier]:
    return (
        incremental_codebooks(
            [model.trainable_variables], 4, preserve_zeros=False, initialization="linear", seed=0
        ),
    )


CASES = {
    "plain": lambda model: (),
    "pruning along a ramp": pruning,
    "incremental codebook": incremental_codebook,
    "moving average": lambda model: (moving_average(model, 0.9),),
    "stochastic average": lambda model: (stochastic_average(model, 0.5),),
}


@pytest.fixture(scope="module")
def undisturbed(blobs_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The training of a case from its beginning to its end, done once."""

    @functools.cache
    def trained(case: str) -> tuple[keras.Model, FitResult]:
        return train(blobs_data, tmp_path_factory.mktemp("undisturbed"), CASES[case])

    return trained


@pytest.mark.parametrize(
    ("case", "at_step"),
    [
        pytest.param("plain", 1, marks=pytest.mark.slow),
        ("plain", 40),
        pytest.param("pruning along a ramp", 14, marks=pytest.mark.slow),
        ("pruning along a ramp", 40),
        ("incremental codebook", 40),
        pytest.param("moving average", 14, marks=pytest.mark.slow),
        ("stochastic average", 14),
    ],
)
def test_an_interrupted_training_ends_as_one_that_was_not(
    blobs_data: Dataset,
    tmp_path: Path,
    undisturbed: Undisturbed,
    case: str,
    at_step: int,
) -> None:
    modifiers = CASES[case]
    expected_model, expected = undisturbed(case)
    with pytest.raises(KeyboardInterrupt):
        train(blobs_data, tmp_path / "a", modifiers, observer=ControlC(at_step))
    model, result = train(blobs_data, tmp_path / "a", modifiers)
    assert result.origin == "taken up"
    for row, right in zip(result.epochs, expected.epochs, strict=True):
        timeless = {"seconds": 0.0, "samples_per_second": 0.0}
        assert replace(row, **timeless) == replace(right, **timeless)
    for found, right in zip(model.get_weights(), expected_model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, right)


def test_a_finished_training_is_not_done_again(blobs_data: Dataset, tmp_path: Path) -> None:
    first, _ = train(blobs_data, tmp_path, pruning)
    again, result = train(blobs_data, tmp_path, pruning, observer=ControlC(0))
    assert result.origin == "taken up" and len(result.epochs) == 4
    np.testing.assert_array_equal(first.get_weights()[0], again.get_weights()[0])


def test_the_checkpoint_before_a_truncated_one_counts(
    blobs_data: Dataset,
    tmp_path: Path,
    undisturbed: Undisturbed,
) -> None:
    expected, _ = undisturbed("plain")
    with pytest.raises(KeyboardInterrupt):
        train(blobs_data, tmp_path / "a", observer=ControlC(20), every_seconds=0.0)
    *_, newest = sorted((tmp_path / "a").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1000])
    model, result = train(blobs_data, tmp_path / "a")
    assert result.origin == "taken up"
    np.testing.assert_array_equal(model.get_weights()[0], expected.get_weights()[0])
    for path in (tmp_path / "a").iterdir():
        path.write_bytes(b"")
    _, result = train(blobs_data, tmp_path / "a")
    assert result.origin == "trained"


def test_runs_share_a_training_and_only_the_same_one(blobs_data: Dataset, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10**9)
    first, _ = train(blobs_data, tmp_path / "a", pruning, cache=cache, lineage="prune 0.8")
    same, result = train(blobs_data, tmp_path / "b", pruning, cache=cache, lineage="prune 0.8")
    assert result.origin == "taken over"
    np.testing.assert_array_equal(same.get_weights()[0], first.get_weights()[0])

    changed = blobs_data.train.x.copy()
    changed[0, 0, 0, 0] ^= 1
    another = replace(blobs_data, train=replace(blobs_data.train, x=changed))
    others = [
        train(blobs_data, tmp_path / "c", pruning, cache=cache, lineage="prune 0.9"),
        train(blobs_data, tmp_path / "d", pruning, cache=cache, lineage="prune 0.8", seed=1),
        train(another, tmp_path / "e", pruning, cache=cache, lineage="prune 0.8"),
        train(blobs_data, tmp_path / "f", cache=cache, lineage="prune 0.8"),
    ]
    assert [result.origin for _, result in others] == ["trained"] * 4
    _, plain = train(blobs_data, tmp_path / "g", cache=cache, lineage="whatever comes before")
    assert plain.origin == "taken over", (
        "a training that nothing modifies is the same in every pipeline"
    )


def test_what_was_used_longest_ago_leaves_the_cache(tmp_path: Path) -> None:
    array = np.zeros(1000, np.float32)
    cache = Cache(tmp_path, 11_000)
    for age, name in ((300, "a"), (200, "b")):
        cache.add(name, Snapshot([array], [], {}, True))
        os.utime(tmp_path / f"{name}.training", (age, age))
    assert cache.find("a") is not None
    cache.add("c", Snapshot([array], [], {}, True))
    assert cache.find("b") is None and cache.find("a") is not None and cache.find("c") is not None


def test_a_damaged_file_of_the_cache_is_as_good_as_none(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10**9)
    cache.add("a", Snapshot([np.ones(1000)], [], {}, True))
    content = bytearray((tmp_path / "a.training").read_bytes())
    content[500] ^= 1
    (tmp_path / "a.training").write_bytes(content)
    assert cache.find("a") is None
