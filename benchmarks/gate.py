r"""How `netopt check` decides on real runs: other seeds, and other seeds with a planted drop.

    netopt train arch=mlp 'arch.hidden=[32]' data=npz data.path=mnist10k.npz train.epochs=4 \
      opt=quantize seeds=55 hydra.run.dir=runs/gate
    python -m benchmarks.gate runs/gate [--seeds 5] [--drop 0.01]

The first seeds make the baseline; each further handful is a re-run, which must pass as it is and
fail when the accuracy of its last row is less by the drop.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from netopt_cli.checking import baseline_of, check
from netopt_cli.run_groups import Group, gather


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate")
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--drop", type=float, default=0.01)
    arguments = parser.parse_args()
    number = arguments.seeds
    folders = sorted(arguments.runs.glob("seed-*"), key=lambda path: int(path.name[5:]))
    baseline = baseline_of(_group(folders[:number]))
    passed = caught = 0
    starts = range(number, len(folders) - number + 1, number)
    for start in starts:
        again = folders[start : start + number]
        failed = [each for each in check([_group(again)], [], baseline) if not each.passed]
        passed += not failed
        with TemporaryDirectory() as place:
            worse = [_worse(folder, Path(place), arguments.drop) for folder in again]
            found = check([_group(worse)], [], baseline)
        caught += any(each.column == "accuracy" and not each.passed for each in found)
        for each in failed:
            print(f"seeds from {start}: {each.message}")
    print(f"{passed} of {len(starts)} re-runs passed; {caught} of {len(starts)} drops were caught")


def _group(folders: list[Path]) -> Group:
    (group,), _ = gather(map(str, folders))
    return group


def _worse(folder: Path, place: Path, drop: float) -> Path:
    record = json.loads((folder / "record.json").read_text())
    record["rows"][-1]["accuracy"] -= drop
    copy = place / folder.name
    copy.mkdir()
    (copy / "record.json").write_text(json.dumps(record, indent=2))
    return copy


if __name__ == "__main__":
    main()
