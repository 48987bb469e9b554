"""Your own recordings, WAV files in one folder a class; voices are kept apart."""

import re
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from netopt_cli.assembly import Fraction, SampleLimit, assemble
from netopt_cli.class_folders import LabelledFiles, list_class_folders
from netopt_cli.dataset import ArraySource, Augment, Dataset
from netopt_cli.errors import DataError
from netopt_cli.front_end import Features, FrontEnd
from netopt_cli.sound_reader import SoundReader
from netopt_cli.spectrum_augment import SpectrumAugmentOptions, spectrum_augmentation
from netopt_cli.wav import HIGHEST_RATE, LOWEST_RATE, read_clip

Rate = Annotated[int, Field(ge=LOWEST_RATE, le=HIGHEST_RATE)]
Milliseconds = Annotated[float, Field(ge=1, le=1000)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

SUFFIXES = (".wav",)


def load(
    seed: int,
    *,
    path: str,
    speaker_pattern: str | None = None,
    sample_rate: Rate = 16_000,
    seconds: Annotated[float, Field(gt=0, le=60)] = 1.0,
    features: Features = "log_mel",
    frame_ms: Milliseconds = 40.0,
    hop_ms: Milliseconds = 20.0,
    mel_bins: Count = 40,
    coefficients: Count = 10,
    low_hz: Annotated[float, Field(ge=0)] = 20.0,
    high_hz: Positive | None = None,
    validation_fraction: Fraction = 0.1,
    test_fraction: Fraction = 0.2,
    normalize: Literal["none", "unit", "standardize"] = "standardize",
    augment: SpectrumAugmentOptions | None = None,
    train_limit: SampleLimit | None = None,
    labels_per_class: SampleLimit | None = None,
) -> Dataset:
    """Reads `path/CLASS/…`, or `path/train/CLASS/…` with `path/validation` (or `val`) and
    `path/test` beside it, and computes the features of all recordings, which stay in memory.

    With the defaults a sample is (49, 40, 1): frames, bands, one channel. Every band (coefficient)
    is standardized by itself; a waveform as a whole.

    Args:
        seed: Of the validation split and of `train_limit` and of `labels_per_class`.
        path: The folder. Links that lead out of it are refused.
        speaker_pattern: Regular expression with one group, searched in the path within the class
            folder; the group is who speaks. All recordings of a speaker go to one split.
        sample_rate: In Hz; others are converted.
        seconds: Of a sample: the beginning of a longer recording, zeros after a shorter one.
        features: See `front_end`, also for the parameters from `frame_ms` to `high_hz`.
        validation_fraction: Share of the training samples; unused with a validation folder.
        test_fraction: Share of all samples, the same for every seed; unused with a test folder.
        augment: The arguments of `spectrum_augmentation`; for spectra only.

    Raises:
        DataError: No recordings, an empty class, a file that is no WAV file or is empty or
            truncated, a pattern that does not tell the speaker of a file, a speaker who is in two
            split folders, parameters that contradict one another.
    """
    front_end = FrontEnd(
        sample_rate, seconds, features, frame_ms, hop_ms, mel_bins, coefficients, low_hz, high_hz
    )
    augment_batch = _augmentation(features, augment)
    class_names, listed = list_class_folders(path, suffixes=SUFFIXES, what="recordings")
    speakers = None
    if speaker_pattern is not None:
        speakers = {split: _speakers(files, speaker_pattern) for split, files in listed.items()}
    sources = {split: _source(files, front_end) for split, files in listed.items()}
    return assemble(
        "audio_folder",
        train=sources["train"],
        validation=sources.get("validation"),
        test=sources.get("test"),
        class_names=class_names,
        seed=seed,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        normalize=normalize,
        channel_axes=0 if features == "waveform" else 2,
        augment=augment_batch,
        train_limit=train_limit,
        labels_per_class=labels_per_class,
        groups=speakers,
        reader=SoundReader(front_end),
    )


def _source(files: LabelledFiles, front_end: FrontEnd) -> ArraySource:
    rate, samples = front_end.sample_rate, front_end.samples
    x = [front_end(read_clip(path, sample_rate=rate, samples=samples)) for path in files.paths]
    return ArraySource(np.stack(x), np.array(files.labels, np.int32))


def _speakers(files: LabelledFiles, pattern: str) -> np.ndarray:
    """(n,) str: who speaks in each file."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DataError(
            f"speaker_pattern must be a regular expression. Received: '{pattern}' ({error})"
        ) from error
    if expression.groups != 1:
        raise DataError(
            "speaker_pattern must have one group, in parentheses: who speaks. "
            f"Received: '{pattern}' with {expression.groups}"
        )
    speakers = []
    for path, within in zip(files.paths, files.within, strict=True):
        found = expression.search(within)
        if found is None or not found[1]:
            raise DataError(
                f"speaker_pattern must tell who speaks in every file. Received: '{pattern}', which "
                f"finds nobody in '{within}' of {path.parent}"
            )
        speakers.append(found[1])
    return np.array(speakers)


def _augmentation(features: Features, options: SpectrumAugmentOptions | None) -> Augment | None:
    """Refuses what has no meaning for the features."""
    options = options or {}
    wanted = [name for name, value in options.items() if value]
    if features == "waveform" and wanted:
        raise DataError(
            f"augment needs features=log_mel or mfcc. Received: features=waveform with {wanted[0]}"
        )
    moved = [name for name in wanted if name in ("frequency_shift", "frequency_stretch")]
    if features == "mfcc" and moved:
        raise DataError(
            f"augment.{moved[0]} needs features=log_mel, whose bands are frequencies. "
            "Received: features=mfcc"
        )
    return spectrum_augmentation(**options)
