"""Every family of keras.applications: pruned by surgery, factorized and quantized from the CLI.

    python -m benchmarks.applications [FAMILY ...] [--folder FOLDER]

For each family, smallest variant, random weights, 10 classes of the embedded digits resized:
one run of `opt=[structured,lowrank,quantize]`, with 30 % of the channels removed. Says what MACs,
parameters and bytes each step leaves, how far the smaller network is from the masked one (the
property that surgery must have), and which layers were left alone. Nothing is said of accuracy: the
weights are random. Results go into FOLDER as they come.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

SIZES = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 71,
}
"""Family -> side of its images: the smallest it takes, and at least 32."""

RATIO = 0.3
STAGES = ("baseline", "structured", "lowrank", "quantize")


def run(family: str, folder: Path) -> dict[str, Any]:
    """Runs the CLI and returns what it left, or the last line of its log when it failed."""
    command = [
        sys.executable, "-m", "netopt_cli.app", "train", "--quiet", "arch=keras_model",
        f"arch.application={family}", f"arch.resize={SIZES[family]}", "data=digits",
        "data.train_limit=64", "train.epochs=1", "control=false",
        "opt=[structured,lowrank,quantize]", f"opt.structured.ratio={RATIO}",
        "opt.structured.of=channels", "opt.structured.criterion=l2", "opt.structured.epochs=0",
        "opt.lowrank.epochs=1", "opt.quantize.calibration_samples=50",
        "target.warmup_runs=3", "target.timed_runs=30", f"hydra.run.dir={folder / family}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"family": family, "failed": (done.stderr.strip().splitlines() or ["?"])[-1]}
    record = json.loads((folder / family / "record.json").read_text())
    rows = {row["stage"]: row for row in record["rows"]}
    notes = record["stages"]["1-structured"].get("notes", [])
    return {
        "family": family,
        **{
            stage: {key: rows[stage][key] for key in ("macs", "params", "size_bytes")}
            for stage in STAGES
        },
        "left_alone": [note for note in notes if "left alone" in note],
        "lowrank_notes": record["stages"]["2-lowrank"].get("notes", []),
    }


def difference(family: str) -> float:
    """Returns the largest difference of the smaller and the masked network's logits, relative."""
    import keras

    from netopt_cli.arch import keras_model
    from netopt_cli.graph.channels import read_channels
    from netopt_cli.graph.surgery import masked, remove

    keras.utils.set_random_seed(0)
    side = SIZES[family]
    model = keras_model.build((side, side, 1), 10, application=family)
    random = np.random.default_rng(0)
    for weight in model.weights:  # statistics and factors of a trained network differ by channel
        if len(weight.shape) == 1 and weight.dtype == "float32":
            weight.assign(weight + random.uniform(0.0, 0.3, weight.shape).astype(np.float32))
    graph = read_channels(model)
    removed = {
        group.name: random.permutation(group.size)[: int(RATIO * group.size)]
        for group in graph.groups
    }
    x = random.random((4, side, side, 1)).astype(np.float32)
    smaller = remove(model, graph, removed)(x, training=False).numpy()
    reference = masked(model, graph, removed)(x, training=False).numpy()
    return float(np.abs(smaller - reference).max() / np.abs(reference).max())


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "| family | MACs | structured 0.3 | then low rank | bytes | structured | low rank | int8 "
        "| pruned − masked | layers left alone |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        if "failed" in one:
            lines.append(f"| {one['family']} | {one['failed']} |" + " |" * 8)
            continue
        base, pruned, factored, int8 = (one[stage] for stage in STAGES)
        lines.append(
            f"| {one['family']} | {base['macs'] / 1e6:,.1f} M "
            f"| {pruned['macs'] / base['macs']:.2f} × | {factored['macs'] / base['macs']:.2f} × "
            f"| {base['size_bytes'] / 1e6:,.2f} MB "
            f"| {pruned['size_bytes'] / base['size_bytes']:.2f} × "
            f"| {factored['size_bytes'] / base['size_bytes']:.2f} × "
            f"| {int8['size_bytes'] / base['size_bytes']:.2f} × "
            f"| {one['difference']:.0e} | {len(one['left_alone'])} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", default=list(SIZES), metavar="FAMILY")
    parser.add_argument("--folder", type=Path, default=Path("runs/applications"))
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for family in options.families:
        results.append(run(family, folder) | {"difference": difference(family)})
        (folder / "results.json").write_text(json.dumps(results, indent=2))
        (folder / "table.md").write_text(table(results) + "\n")
    Console().print(table(results), soft_wrap=True)


if __name__ == "__main__":
    main()
