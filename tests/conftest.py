"""What several tests share: a tiny data set, and a way to call the command line."""

import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["NETOPT_CACHE"] = ""  # tests train what they test; those of the cache name a folder
os.environ.pop("COLUMNS", None)  # pytest-xdist sets it; a pipe has no width

import hypothesis
from command_line import CommandLine

from netopt_cli.dataset import ArraySource, Dataset, Normalization

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def blobs(count: int, seed: int) -> ArraySource:
    """Three well separated classes of 4x4 grey images: a pattern each, with noise."""
    patterns = np.random.default_rng(99).uniform(40, 215, (3, 4, 4, 1))
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, count).astype(np.int32)
    x = patterns[y] + random.normal(0, 20, (count, 4, 4, 1))
    return ArraySource(x.clip(0, 255).astype(np.uint8), y)


SPREAD = {"test_end_to_end.py", "test_contract.py", "test_hostile.py"}
"""Long files whose tests share nothing: they may go to several workers."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the tests of a file on one worker, so that what they share is made once."""
    for item in items:
        if item.path.name not in SPREAD:
            item.add_marker(pytest.mark.xdist_group(item.path.name))


def pytest_collection_finish() -> None:
    """Takes what was imported, TensorFlow above all, out of the rounds of garbage collection,
    which would take half the time of a short test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random weights every time, for tests that use Keras."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Hydra's `--info` and `hydra.verbose` add handlers, on a stream that ends with the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def blobs_data() -> Dataset:
    return Dataset(
        name="blobs",
        shape=(4, 4, 1),
        classes=3,
        class_names=("a", "b", "c"),
        train=blobs(200, 0),
        validation=blobs(60, 1),
        test=blobs(60, 2),
        normalization=Normalization(0.0, 1 / 255),
        augment=None,
        fingerprint="",
    )


@pytest.fixture
def netopt(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)
