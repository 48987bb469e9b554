"""From a recording of a person's to a sample: for `netopt predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netopt_cli.errors import DataError, InputError
from netopt_cli.front_end import FrontEnd
from netopt_cli.wav import read_clip


@dataclass(frozen=True)
class SoundReader:
    """WAV files of any rate and length: see `wav`.

    Attributes:
        front_end: Makes samples of them.
    """

    front_end: FrontEnd
    kind = "sound"
    expects = "a .wav file"

    def to_json(self) -> dict[str, Any]:
        return asdict(self.front_end)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SoundReader:
        return cls(FrontEnd(**{name: value for name, value in values.items() if name != "kind"}))

    def read(self, values: Sequence[str]) -> list[tuple[str, np.ndarray]]:
        return [(value, self.front_end(self._clip(value))) for value in values]

    def _clip(self, value: str) -> np.ndarray:
        front = self.front_end
        if not Path(value).is_file():
            raise InputError(f"No such file: {value}")
        try:
            return read_clip(Path(value), sample_rate=front.sample_rate, samples=front.samples)
        except DataError as error:
            raise InputError(str(error)) from error
