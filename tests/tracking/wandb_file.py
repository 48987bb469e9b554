"""Reading the file of an offline run of W&B, as `wandb sync` would."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _HEADER = 32 * 1024, 7


def records(path: Path) -> Iterator[Record]:
    """The records of a `.wandb` file, which is a log of LevelDB behind 7 bytes of its own."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    at, parts = _HEADER, b""
    while at + _HEADER <= len(content):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def items(entries: Any) -> dict[str, Any]:
    """What a record has under its keys, those in nested ones joined by dots."""
    return {each.key or ".".join(each.nested_key): json.loads(each.value_json) for each in entries}


class OfflineRun:
    """What is in the directory of an offline run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (path,) = folder.glob("*.wandb")
        found = list(records(path))
        self.run = next(each.run for each in found if each.HasField("run"))
        self.config = items(self.run.config.update)
        self.history = [items(each.history.item) for each in found if each.HasField("history")]
        self.metrics = [each.metric for each in found if each.HasField("metric")]
        self.summary: dict[str, Any] = {}
        for each in found:
            if each.HasField("summary"):
                self.summary |= items(each.summary.update)
        self.exit_code = next(each.exit.exit_code for each in found if each.HasField("exit"))
        self.files = {
            path.relative_to(folder / "files").as_posix()
            for path in (folder / "files").rglob("*")
            if path.is_file()
        }


def offline_runs(folder: Path) -> list[OfflineRun]:
    """The offline runs in a run directory, in the order in which they began."""
    found = [OfflineRun(each) for each in folder.glob("wandb/offline-run-*")]
    return sorted(found, key=lambda each: each.run.start_time.ToNanoseconds())
