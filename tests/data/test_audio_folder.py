import json

import numpy as np
import pytest
from wav_files import spoken_words, tone, wav

from netopt_cli.data import audio_folder
from netopt_cli.errors import DataError

SPEAKER = r"^(s\d+)_\d+\.wav$"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Three words, six speakers, two clips of each."""
    return spoken_words(tmp_path_factory.mktemp("words"))


def load(folder, seed=0, **arguments):
    arguments = {"sample_rate": 8000, "seconds": 0.3, "mel_bins": 12} | arguments
    return audio_folder.load(seed, path=str(folder), **arguments)


def splits(data):
    return data.train, data.validation, data.test


def speakers_of(data, words):
    """Returns who speaks in each split, by looking for the clips in the files."""
    owner = {}
    for file in words.rglob("*.wav"):
        clip = audio_folder.read_clip(file, sample_rate=8000, samples=2400)
        owner[clip.tobytes()] = file.name.split("_")[0]
    return [{owner[clip.tobytes()] for clip in split.x} for split in splits(data)]


def test_class_folders_become_spectra(words):
    data = load(words)
    assert data.class_names == ("high", "low", "middle")
    assert data.shape == (14, 12, 1)
    assert sum(map(len, splits(data))) == 36
    assert np.bincount(data.test.y).tolist() == [3, 2, 2]
    loudest = data.train.x[..., 0].mean(axis=1).argmax(axis=1)
    means = [loudest[data.train.y == label].mean() for label in range(3)]
    assert means[0] > means[2] > means[1]


def test_no_speaker_is_in_two_splits(words):
    arguments = {"speaker_pattern": SPEAKER, "features": "waveform", "validation_fraction": 0.3}
    data = load(words, **arguments)
    who = speakers_of(data, words)
    assert [len(part) for part in who] == [4, 1, 1]
    assert len(set.union(*who)) == 6
    for split in splits(data):
        assert set(split.y) == {0, 1, 2}
    others = [load(words, seed, **arguments) for seed in range(1, 6)]
    assert all(speakers_of(other, words)[2] == who[2] for other in others)
    assert any(speakers_of(other, words)[1] != who[1] for other in others)
    assert {other.fingerprint for other in others} == {data.fingerprint}


def test_every_band_is_standardized_by_itself(words):
    data = load(words)
    ((x, _),) = data.normalized_batches(data.train, 100)
    np.testing.assert_allclose(x.mean((0, 1, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(x.std((0, 1, 3)), 1, atol=1e-3)
    waves = load(words, features="waveform")
    assert waves.shape == (2400,)
    assert np.ndim(waves.normalization.subtract) == 0


def test_common_parameters_arrive(words):
    data = load(words, train_limit=9, normalize="unit", augment={"time_shift": 0.1})
    assert len(data.train) == 9
    assert data.augment is not None
    ((x, _),) = data.normalized_batches(data.train, 100)
    assert x.min() >= 0 and x.max() <= 1 + 1e-6
    mfcc = load(words, features="mfcc", coefficients=5, normalize="none", augment={"noise": 0.1})
    assert mfcc.shape == (14, 5, 1)
    assert np.ndim(mfcc.normalization.subtract) == 0


def test_files_of_every_kind_make_one_set(tmp_path):
    for word, hertz in (("a", 500), ("b", 2000)):
        (tmp_path / word / "deeper").mkdir(parents=True)
        both = np.stack([tone(hertz, 0.2, 44_100)] * 2, axis=1)
        for name, content in {
            "stereo.wav": wav(both, 44_100),
            "wide.WAV": wav(tone(hertz, 0.4), bits=24),
            "deeper/narrow.wav": wav(tone(hertz, 0.3, 8000), 8000, bits=8),
            "float.wav": wav(tone(hertz, 0.3), bits=32, is_float=True),
            "notes.txt": b"left out",
            ".hidden.wav": b"left out",
        }.items():
            (tmp_path / word / name).write_bytes(content)
    data = load(tmp_path, test_fraction=0.25, validation_fraction=0.4)
    assert [len(split) for split in splits(data)] == [4, 2, 2]
    bands = np.concatenate([split.x for split in splits(data)])[:, 4, :, 0].argmax(axis=1)
    labels = np.concatenate([split.y for split in splits(data)])
    assert all(len(set(bands[labels == label])) == 1 for label in (0, 1))


def test_split_folders_are_used_as_they_are(tmp_path):
    for split, count in (("train", 4), ("val", 2), ("test", 1)):
        spoken_words(tmp_path / split, speakers=count, clips=1)
    data = load(tmp_path)
    assert [len(split) for split in splits(data)] == [12, 6, 3]
    with pytest.raises(DataError, match=r"speaker.* in one split. Received: 's0' in \w+ and \w+\."):
        load(tmp_path, speaker_pattern=SPEAKER)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(s", r"must be a regular expression. Received: '\(s'"),
        (r"^s\d", r"must have one group, in parentheses.* with 0"),
        (r"(s)(\d)", "with 2"),
        (r"^(t\d+)_", r"finds nobody in 's0_0.wav' of .*/high"),
        (r"^(t?)", "finds nobody"),
        (r"^(s)", "needs a group .*Received: .* belong to 's'"),
    ],
)
def test_a_pattern_that_tells_no_speakers_is_refused(words, pattern, message):
    with pytest.raises(DataError, match=message):
        load(words, speaker_pattern=pattern)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "waveform", "augment": {"noise": 0.1}}, "log_mel or mfcc. .*with noise"),
        (
            {"features": "mfcc", "augment": {"frequency_shift": 0.1}},
            "augment.frequency_shift needs",
        ),
        ({"seconds": 0.01}, "frame_ms must be .*seconds=0.01"),
    ],
)
def test_options_that_mean_nothing_are_refused(words, options, message):
    with pytest.raises(DataError, match=message):
        load(words, **options)


def test_bad_folders_get_one_clear_message(tmp_path):
    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message) as caught:
            load(tmp_path / "set")
        assert "\n" not in str(caught.value)

    refused("No such folder: .*set")
    (tmp_path / "set").mkdir()
    refused("has no class folders: put recordings in one a class")
    (tmp_path / "set" / "yes").mkdir()
    refused(r"class folder .*/yes has no recordings \(\.wav\)")
    (tmp_path / "set" / "yes" / "0.wav").write_bytes(wav(tone(500, 0.3)))
    refused("at least 2 classes")
    spoken_words(tmp_path / "set")
    broken = tmp_path / "set" / "low" / "s3_1.wav"
    whole = broken.read_bytes()
    for content, message in ((b"", "is empty"), (whole[:-7], "is truncated")):
        broken.write_bytes(content)
        refused(rf"s3_1\.wav {message}")


def test_links_may_not_leave_the_folder(tmp_path):
    spoken_words(tmp_path / "set")
    (tmp_path / "outside.wav").write_bytes(wav(tone(500, 0.3)))
    (tmp_path / "set" / "low" / "link.wav").symlink_to(tmp_path / "outside.wav")
    with pytest.raises(DataError, match=r"link\.wav leads out of"):
        load(tmp_path / "set")


def test_a_network_hears_the_words_from_the_command_line(netopt, tmp_path):
    spoken_words(tmp_path / "words", speakers=5)
    run = netopt(
        "train", "data=audio_folder", "data.path=words", f"data.speaker_pattern='{SPEAKER}'",
        "data.seconds=0.3", "data.mel_bins=10", "data.validation_fraction=0.25",
        "data.augment.time_shift=0.1", "arch=ds_cnn", "arch.filters=8", "arch.separable_blocks=1",
        "arch.dropout=0", "train.epochs=30", "train.learning_rate=0.01", "train.batch_size=9",
        "opt=[structured,quantize]", "opt.structured.epochs=2", "control=false",
        "target.warmup_runs=2", "target.timed_runs=30", "--json",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    baseline, structured, quantized = json.loads(run.stdout.splitlines()[-2])["rows"]
    assert baseline["accuracy"] == 1
    assert structured["macs"] < 0.6 * baseline["macs"]
    assert quantized["size_bytes"] < baseline["size_bytes"]
    folder = next(tmp_path.glob("runs/2*"))
    said = netopt("predict", str(folder), "--json", "--input", "words/low/s1_0.wav")
    assert json.loads(said.stdout)["class"] == "low", said.stderr


def test_a_truncated_recording_ends_in_one_line(netopt, tmp_path):
    spoken_words(tmp_path / "words")
    broken = tmp_path / "words" / "high" / "s0_0.wav"
    broken.write_bytes(broken.read_bytes()[:500])
    run = netopt("train", "data=audio_folder", "data.path=words", "arch=ds_cnn")
    assert run.returncode == 2
    assert "high/s0_0.wav is truncated" in run.stderr
    assert not list(tmp_path.glob("runs/*"))
