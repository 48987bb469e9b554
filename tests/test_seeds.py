"""`seeds` in a config: what it means, and what it does not go with."""

import pytest
from test_config import refusal

from netopt_cli import seeds
from netopt_cli.completion import candidates
from netopt_cli.config import compose


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], ()),
        (["seeds=3"], (0, 1, 2)),
        (["+seeds=[7,0]"], (7, 0)),
        (["seeds=null", "seed=4"], ()),
        (["seeds=1"], (0,)),
    ],
)
def test_how_many_or_which(words: list[str], wanted: tuple[int, ...]) -> None:
    assert seeds.listed(compose(words).seeds) == wanted


def test_the_config_of_one_is_that_of_its_seed_alone() -> None:
    several = compose(["arch=mlp", "opt=prune", "seeds=[3,9]"])
    assert seeds.alone(several, 9) == compose(["arch=mlp", "opt=prune", "seed=9"])
    assert several.seed == 0 and list(several.seeds) == [3, 9]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["seeds=0"], "seeds must be >= 1"),
        (["seeds=20260101"], "<= 1000"),
        (["seeds=[]"], "at least 1"),
        (["seeds=[0,-1]"], ">= 0"),
        (["seeds=[1,2,1]"], "seeds must be different. Received: 1 twice"),
        (["seeds=some"], "seeds must be an integer or a list. Received: seeds=some"),
        (["seeds=0,1"], "seeds=[0,1]"),
        (["seed=0,1"], "seeds=[0,1]"),
        (["seeds=5", "seed=3"], "seed=3 does not go with seeds=5"),
        (["seeds=3", "target=multi_worker"], "target=multi_worker"),
        (["seds=5"], "seeds"),
    ],
)
def test_what_cannot_be_meant(words: list[str], named: str) -> None:
    assert named in refusal(*words)


def test_a_sweep_over_seed_is_refused_beside_seeds() -> None:
    assert "seed=0,1 does not go with seeds=2" in refusal("seed=0,1", "seeds=2", multirun=True)


def test_the_completion_knows_the_key() -> None:
    assert candidates("netopt train see") == ["seed=", "seeds="]
