from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from netopt_cli.contracts import Scheme
from netopt_cli.errors import ParityError
from netopt_cli.measure.parity import check_parity, tolerance

LOGITS = np.random.default_rng(0).normal(0, 5, (64, 10)).astype(np.float32)

finite = st.floats(-50, 50, width=32)


@given(arrays(np.float32, (6, 3), elements=finite), arrays(np.float32, 3, elements=finite))
def test_an_output_that_ignores_the_input_never_passes_as_int8(expected, constant):
    largest = np.abs(expected).max()
    spread = np.ptp(expected, axis=0).max()
    if spread > 0.1 * largest + 0.01:
        with pytest.raises(ParityError):
            check_parity("int8", expected, np.tile(constant, (6, 1)))


@pytest.mark.parametrize(
    "break_it",
    [
        np.zeros_like,
        lambda logits: logits[::-1],
        lambda logits: np.roll(logits, 1, axis=1),
        lambda logits: -logits,
        lambda logits: logits * np.nan,
    ],
    ids=["zeros", "other samples", "other classes", "sign", "nan"],
)
@pytest.mark.parametrize("scheme", get_args(Scheme))
def test_broken_outputs_fail(scheme, break_it):
    with pytest.raises(ParityError, match=r"logits differ by up to .*, the tolerance is \d"):
        check_parity(scheme, LOGITS, break_it(LOGITS))


def test_rounding_passes():
    assert check_parity("float32", LOGITS, LOGITS + 1e-5).samples == 64
    step = np.float32(np.ptp(LOGITS) / 255)
    parity = check_parity("int8", LOGITS, np.rint(LOGITS / step) * step)
    assert 0 < parity.max_abs < parity.tolerance
    with pytest.raises(ParityError):
        check_parity("float32", LOGITS, np.rint(LOGITS / step) * step)


def test_a_saturated_logit_passes_as_int8():
    parity = check_parity("int8", LOGITS, np.clip(LOGITS, -12, 12))
    assert parity.max_abs == pytest.approx(np.abs(LOGITS).max() - 12, rel=1e-4)


def test_a_network_that_quantizes_badly_passes_as_rough_where_activations_are_rounded():
    noise = np.random.default_rng(1).normal(0, 5, LOGITS.shape).astype(np.float32)
    parity = check_parity("int8", LOGITS, LOGITS + noise)
    assert parity.is_rough and 0.6 < parity.correlation < 0.8
    assert not check_parity("int8", LOGITS, LOGITS + 0.1 * noise).is_rough
    for scheme, off in (("weight_int8", noise), ("int8", 3 * noise)):
        with pytest.raises(ParityError):
            check_parity(scheme, LOGITS, LOGITS + off)


def test_a_dead_network_is_held_to_the_resolution_of_int8():
    dead = np.tile(LOGITS[:1], (64, 1))
    check_parity("int8", dead, dead + 0.01)
    with pytest.raises(ParityError):
        check_parity("int8", dead, np.zeros_like(dead))


@pytest.mark.parametrize(("scale", "expected"), [(0.1, 1e-3), (30.0, 0.03)])
def test_float32_tolerance_grows_with_the_logits(scale, expected):
    assert tolerance("float32", np.array([[scale, -scale]])) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("stricter", "wider"),
    [("float32", "weight_int4"), ("weight_int8", "dynamic"), ("float16", "int8x4")],
)
def test_more_rounding_of_activations_is_given_more_room(stricter, wider):
    assert tolerance(stricter, LOGITS) < tolerance(wider, LOGITS)


def test_weights_of_4_bits_are_not_excused_by_their_rounding():
    off = LOGITS + 0.1 * np.ptp(LOGITS, axis=0).max()
    check_parity("dynamic_int4", LOGITS, off)
    with pytest.raises(ParityError, match="exported weight_int4 file"):
        check_parity("weight_int4", LOGITS, off)


def test_another_number_of_classes_fails():
    with pytest.raises(ParityError, match=r"\(9,\) outputs, the network \(10,\)"):
        check_parity("float32", LOGITS, LOGITS[:, :9])
