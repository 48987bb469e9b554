from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wav_files import part, tone, wav

from netopt_cli.errors import DataError
from netopt_cli.wav import read_clip

SOUND = tone(440, 0.1)


@pytest.fixture
def read(tmp_path: Path):
    def read_bytes(content: bytes, sample_rate: int = 16_000, samples: int = 1600) -> np.ndarray:
        (tmp_path / "clip.wav").write_bytes(content)
        return read_clip(tmp_path / "clip.wav", sample_rate=sample_rate, samples=samples)

    return read_bytes


@pytest.mark.parametrize(
    ("bits", "is_float", "step"),
    [(8, False, 2**-7), (16, False, 2**-15), (24, False, 2**-23), (32, False, 2**-30),
     (32, True, 2**-23), (64, True, 2**-23)],
)  # fmt: skip
def test_every_width_gives_the_same_sound(read, bits, is_float, step):
    x = read(wav(SOUND, bits=bits, is_float=is_float))
    assert x.dtype == np.float32
    assert x.shape == (1600,)
    np.testing.assert_allclose(x, SOUND, atol=1.01 * step + 6e-8)


def test_channels_are_averaged(read):
    both = np.stack([SOUND, np.full_like(SOUND, 0.25)], axis=1)
    np.testing.assert_allclose(read(wav(both, bits=24)), (SOUND + 0.25) / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
def test_other_rates_are_converted(read, rate):
    x = read(wav(tone(440, 0.1, rate), rate))
    inside = slice(200, 1400)  # the filter sees silence beyond the ends
    np.testing.assert_allclose(x[inside], SOUND[inside], atol=5e-3)


def test_what_the_lower_rate_cannot_hold_is_filtered_out(read):
    x = read(wav(tone(7000, 0.1)), sample_rate=8_000, samples=800)
    assert np.abs(x[100:700]).max() < 0.01  # as 1000 Hz it would be 0.5


def test_long_clips_are_cut_and_short_ones_filled(read):
    content = wav(SOUND)
    np.testing.assert_array_equal(read(content, samples=900), read(content)[:900])
    filled = read(content, samples=2000)
    np.testing.assert_array_equal(filled, np.append(read(content), np.zeros(400)))
    for samples in (799, 800, 801):  # whatever the rounding
        assert read(content, sample_rate=8_000, samples=samples).shape == (samples,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (wav(SOUND[:0]), "empty: it has a header and no samples"),
        (wav(SOUND)[:-900], r"truncated: its part 'data' should end at byte 3,25\d"),
        (wav(SOUND)[:20], "truncated: its part 'fmt '"),
        (wav(SOUND)[:12], "(is truncated|Cannot read)"),
        (b"ID3" + bytes(100), "Not a WAV file"),
        (b"RIFF\x04\0\0\0AVI " + bytes(100), "Not a WAV file"),
        (wav(np.full(9, np.nan), is_float=True, bits=32), "finite samples"),
        (wav(SOUND).replace(b"\x01\0\x01\0", b"\x07\0\x01\0", 1), "MULAW"),
        (wav(SOUND, rate=5), r"rate .* must be 1,000 to 192,000 Hz. Received: .* with 5"),
        (wav(SOUND, rate=4_000_000_000 // 2), "rate .* must be"),
        (b"RIFF" + bytes(4) + b"WAVE" + part(b"data", bytes(8)), "(is truncated|Cannot read)"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_and_named(read, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(content)
    assert "clip.wav" in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_header_ends_in_samples_or_in_a_message(tmp_path_factory, changes):
    content = bytearray(wav(SOUND[:40]))
    for position, value in changes:
        content[position] = value
    file = tmp_path_factory.getbasetemp() / "damaged.wav"
    file.write_bytes(content)
    try:
        x = read_clip(file, sample_rate=16_000, samples=100)
    except DataError as error:
        assert "damaged.wav" in str(error)
    else:
        assert x.shape == (100,)
        assert np.isfinite(x).all()


def test_a_folder_is_no_recording(tmp_path):
    with pytest.raises(DataError, match=r"Cannot read the WAV file .*: Is a directory"):
        read_clip(tmp_path, sample_rate=16_000, samples=100)
