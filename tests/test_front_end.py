import numpy as np
import pytest
from scipy.fft import dct
from wav_files import tone

from netopt_cli.errors import DataError
from netopt_cli.front_end import FrontEnd

DEFAULTS = {
    "sample_rate": 16_000, "seconds": 1.0, "features": "log_mel", "frame_ms": 40.0, "hop_ms": 20.0,
    "mel_bins": 40, "coefficients": 10, "low_hz": 20.0, "high_hz": None,
}  # fmt: skip


def front_end(**changes):
    return FrontEnd(**(DEFAULTS | changes))


def noise():
    return np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)


def test_the_shapes_are_those_of_mlperf_tiny():
    assert front_end()(noise()).shape == (49, 40, 1)
    assert front_end(features="mfcc")(noise()).shape == (49, 10, 1)
    assert front_end(features="mfcc")(noise()).dtype == np.float32


def test_a_frame_is_what_the_formula_says():
    clip, t = noise(), 7
    n, k = np.arange(640), np.arange(513)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / 640)
    transform = np.exp(-2j * np.pi * np.outer(n, k) / 1024)
    power = np.abs((window * clip[320 * t : 320 * t + 640]) @ transform) ** 2
    mel = 2595 * np.log10(1 + k * 16_000 / 1024 / 700)
    edges = np.linspace(*(2595 * np.log10(1 + np.array([20, 8000]) / 700)), 42)
    energy = [
        power @ np.interp(mel, edges[m : m + 3], [0, 1, 0], left=0, right=0) for m in range(40)
    ]
    log_mel = np.log(np.array(energy) + 1e-6)
    np.testing.assert_allclose(front_end()(clip)[t, :, 0], log_mel, rtol=1e-4, atol=1e-4)
    mfcc = front_end(features="mfcc", coefficients=13)(clip)[t, :, 0]
    np.testing.assert_allclose(mfcc, dct(log_mel, norm="ortho")[:13], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("hertz", [300, 1000, 4000])
def test_a_tone_is_in_its_band(hertz):
    loudest = front_end()(tone(hertz).astype(np.float32))[..., 0].argmax(axis=1)
    mel = 2595 * np.log10(1 + np.array([20, hertz, 8000]) / 700)
    expected = (mel[1] - mel[0]) / (mel[2] - mel[0]) * 41 - 1
    assert np.abs(loudest - expected).max() <= 0.6


def test_silence_is_finite():
    assert np.isfinite(front_end(features="mfcc")(np.zeros(16_000, np.float32))).all()


def test_a_waveform_is_left_as_it_is():
    clip = noise()
    np.testing.assert_array_equal(front_end(features="waveform", frame_ms=5000.0)(clip), clip)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_ms": 1001.0}, "frame_ms must be .* Received: frame_ms=1001.0, seconds=1.0"),
        ({"sample_rate": 1000, "frame_ms": 1.0}, "frame_ms must be at least two samples"),
        ({"sample_rate": 1000, "hop_ms": 0.1}, "hop_ms must be at least a sample"),
        ({"high_hz": 8001.0}, "at most half of sample_rate, 8000. Received: .*high_hz=8001.0"),
        ({"low_hz": 500.0, "high_hz": 400.0}, "in this order"),
        ({"features": "mfcc", "coefficients": 41}, "at most mel_bins. Received: coefficients=41"),
        ({"mel_bins": 300}, "mel_bins must be few enough.*Received: mel_bins=300, of 513"),
    ],
)
def test_parameters_that_contradict_one_another_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        front_end(**changes)
