"""Learning-rate schedules."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netopt_cli.engine.optimizers import Schedule


def rates(schedule: Schedule) -> np.ndarray:
    steps = range(schedule.total_steps)
    return np.array([float(keras.ops.convert_to_numpy(schedule(step))) for step in steps])


def test_cosine_falls_from_the_peak_to_nothing() -> None:
    values = rates(Schedule("cosine", 0.5, 100))
    assert values[0] == pytest.approx(0.5)
    assert values[50] == pytest.approx(0.25)
    assert values[-1] < 1e-3
    assert (np.diff(values) < 0).all()


def test_step_lowers_at_its_fractions() -> None:
    values = rates(Schedule("step", 1.0, 8, step_at=(0.5, 0.75), step_factor=0.1))
    assert values == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("kind", ["constant", "cosine", "step"])
def test_warm_up_grows_linearly(kind: str) -> None:
    values = rates(Schedule(kind, 1.0, 100, warmup_steps=10, step_at=(0.5,)))
    assert values[:10] == pytest.approx(np.arange(1, 11) / 10, abs=1e-6)


@given(
    kind=st.sampled_from(["constant", "cosine", "step"]),
    warmup=st.integers(0, 9),
    step=st.integers(0, 30),
)
def test_the_rate_is_never_negative_nor_above_the_peak(kind: str, warmup: int, step: int) -> None:
    schedule = Schedule(kind, 0.3, 20, warmup_steps=warmup, step_at=(0.5,))
    assert -1e-7 <= float(keras.ops.convert_to_numpy(schedule(step))) <= 0.3 + 1e-6


def test_a_schedule_survives_its_config() -> None:
    schedule = Schedule("step", 0.2, 10, warmup_steps=2, step_at=(0.5,))
    copy = Schedule.from_config(schedule.get_config())
    assert rates(copy) == pytest.approx(rates(schedule))
