"""Any command line and any YAML ends in words; `benchmarks/fuzz_command_line.py` tries far more."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz_command_line import Example, generate, playground, run


@pytest.fixture
def work() -> Iterator[Path]:
    with playground() as folder:
        yield folder


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.randoms(use_true_random=False))
def test_every_example_ends_in_words(work: Path, r: random.Random) -> None:
    example = generate(r)
    _, wrong = run(example, work)
    assert not wrong, (example.words, example.files)


def test_an_example_can_be_made_again() -> None:
    first, second = (generate(random.Random("0/7")) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("words", "finding"),
    [(["boom"], "internal error"), (["wait"], "exit code 7"), (["write"], "it wrote ['canary']")],
)
def test_what_is_wrong_is_found(
    words: list[str], finding: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def main(argv: list[str]) -> int:
        if argv == ["boom"]:
            print("internal error: KeyError", file=sys.stderr)
        if argv == ["write"]:
            Path("canary").touch()
        return 7 if argv == ["wait"] else 0

    monkeypatch.setattr("netopt_cli.app.main", main)
    assert finding in run(Example(words), work)[1]
    assert not (work / "canary").exists()
