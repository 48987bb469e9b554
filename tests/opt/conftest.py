"""What the tests of the stages share."""

import pytest
from stage_bench import Bench

from netopt_cli.dataset import Dataset


@pytest.fixture
def bench(blobs_data: Dataset) -> Bench:
    return Bench(blobs_data)
