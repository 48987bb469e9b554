"""The trade-off curve of a preset over seeds: accuracy against weights left, beside both controls.

    python -m benchmarks.tradeoff sparse_fashion [--seeds 5] [--folder FOLDER] [OVERRIDE ...]
    python -m benchmarks.tradeoff small_lenet5 --controls-until prune_50

For each seed a run of the preset, with the network trained as long and left whole as the control
of each stage, and a run with random masks in place of those of its criterion. Both controls can end
with a stage, when they cost more than what they are compared with; the stages after it have none.
Runs that FOLDER has already are not run again. Writes FOLDER/table.md and FOLDER/curve.svg.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

PRESETS = Path(__file__).parents[1] / "configs" / "experiment"

Row = dict[str, Any]
Rows = dict[tuple[str, str], Row]
"""(stage, role) -> row of the metrics."""


def rows_of(folder: Path, words: Sequence[str]) -> Rows:
    """Runs netopt unless it has been run, and returns the rows of its record."""
    record = folder / "record.json"
    if not (record.exists() and json.loads(record.read_text())["status"] == "completed"):
        command = [sys.executable, "-m", "netopt_cli.app", "train", "--quiet", *words]
        subprocess.run([*command, f"hydra.run.dir={folder}"], check=True)
    rows = json.loads(record.read_text())["rows"]
    return {(row["stage"], row["role"]): row for row in rows}


def stages_of(preset: str) -> list[str]:
    return [str(name) for name in OmegaConf.load(PRESETS / f"{preset}.yaml").opt]


def first_pruning(stages: Sequence[str]) -> str:
    """The stage whose settings the other prunings of the preset take over."""
    return next(name for name in stages if name.startswith("prune"))


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation, in points; nothing of nothing."""
    if not values:
        return ""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{100 * statistics.fmean(values):.2f} ± {100 * deviation:.2f}"


def table(preset: list[Rows], random: list[Rows]) -> str:
    """The means over the seeds as Markdown, a line a stage."""
    lines = [
        f"| stage (n = {len(preset)}) | weights, × fewer | MACs, × fewer | accuracy | control "
        "| drop, points | random masks | packed bytes | ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    stages = [(stage, role) for stage, role in preset[0] if role != "control"]
    return "\n".join([*lines, *(line(stage, role, preset, random) for stage, role in stages)])


def line(stage: str, role: str, preset: list[Rows], random: list[Rows]) -> str:
    own = [rows[stage, role] for rows in preset]
    accuracies = [row["accuracy"] for row in own]
    stages = [name for name, _ in preset[0]]
    has_masks = stages.index(stage) >= stages.index(first_pruning(stages))
    by_chance = [
        rows[stage, role]["accuracy"] for rows in random if has_masks and (stage, role) in rows
    ]
    controls: list[float] = []
    if role == "stage" and has_control(preset, stage):
        controls = [control_of(rows, stage)["accuracy"] for rows in preset]
    drops = [control - accuracy for control, accuracy in zip(controls, accuracies, strict=False)]
    weights, macs = (
        statistics.fmean(fewer(rows, stage, role, key) for rows in preset)
        for key in ("nonzero_params", "macs")
    )
    packed, latency = (
        statistics.fmean(row[key] for row in own)
        for key in ("size_packed_bytes", "latency_ms_median")
    )
    return (
        f"| {stage} | {weights:.1f} | {macs:.1f} | {spread(accuracies)} | {spread(controls)} "
        f"| {spread(drops)} | {spread(by_chance)} | {packed:,.0f} | {latency:.4f} |"
    )


def control_of(rows: Rows, stage: str) -> Row:
    """The row that the stage is compared with: of a control, which may be that of another stage."""
    name = rows[stage, "stage"]["control"]
    return next(row for (of, role), row in rows.items() if name in (of, f"{of} {role}"))


def has_control(preset: list[Rows], stage: str) -> bool:
    return all(rows[stage, "stage"]["control"] is not None for rows in preset)


def fewer(rows: Rows, stage: str, role: str, key: str) -> float:
    return rows["baseline", "baseline"][key] / rows[stage, role][key]


def draw(preset: list[Rows], random: list[Rows], file: Path) -> None:
    """Draws accuracy against the number of times fewer weights, with the sample deviation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()

    def curve(label: str, points: dict[float, list[float]], style: str) -> None:
        errors = [statistics.stdev(p) if len(p) > 1 else 0.0 for p in points.values()]
        means = [statistics.fmean(p) for p in points.values()]
        axes.errorbar(list(points), means, errors, fmt=style, capsize=3, label=label)

    stages = [stage for stage, role in preset[0] if role == "stage"]
    at = {
        stage: statistics.fmean(fewer(rows, stage, "stage", "nonzero_params") for rows in preset)
        for stage in stages
    }

    def points(
        runs: list[Rows], stages: Sequence[str], pick: Callable[[Rows, str], Row]
    ) -> dict[float, list[float]]:
        return {at[s]: [100 * pick(rows, s)["accuracy"] for rows in runs] for s in stages}

    controlled = [stage for stage in stages if has_control(preset, stage)]
    by_chance = [stage for stage in stages if all((stage, "stage") in rows for rows in random)]
    curve("whole, trained as long", points(preset, controlled, control_of), "s--")
    curve("this preset", points(preset, stages, lambda rows, s: rows[s, "stage"]), "o-")
    curve("random masks", points(random, by_chance, lambda rows, s: rows[s, "stage"]), "x:")
    axes.set_xscale("log")
    ticks = [round(value) for value in at.values()]
    axes.set_xticks(ticks, [f"{tick} ×" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("fewer weights")
    axes.set_ylabel("test accuracy of the file, %")
    axes.legend()
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--controls-until", metavar="STAGE")
    options = parser.parse_args()
    stages = stages_of(options.preset)
    last = stages.index(options.controls_until) + 1 if options.controls_until else len(stages)
    without_later = [f"~opt.{name}" for name in stages[last:]]
    folder: Path = (options.folder or Path("runs") / options.preset).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    criterion = f"opt.{first_pruning(stages)}.criterion"
    by_preset: list[Rows] = []
    by_chance: list[Rows] = []
    for seed in range(options.seeds):
        words = [f"experiment={options.preset}", f"seed={seed}", *options.overrides]
        controlled = rows_of(folder / f"{seed}", [*words, *without_later])
        if without_later:  # whose trainings are not done again
            whole = rows_of(folder / f"{seed}-curve", [*words, "control=false"])
            controlled = whole | controlled
        by_preset.append(controlled)
        random = [*words, *without_later, f"{criterion}=random", "control=false"]
        by_chance.append(rows_of(folder / f"{seed}-random", random))
        (folder / "table.md").write_text(table(by_preset, by_chance) + "\n")
        draw(by_preset, by_chance, folder / "curve.svg")
    Console().print(table(by_preset, by_chance), soft_wrap=True)


if __name__ == "__main__":
    main()
