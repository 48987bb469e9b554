"""Every way of distilling, on one pair of teacher and student, over seeds and beside its control.

    python -m benchmarks.distillation_table FILE.npz [--seeds 3] [--folder FOLDER] [ROW ...]

The student is a small `cnn`, the teacher a larger one with dropout, both on 3,000 samples. A row is
one `netopt train … seeds=…`, whose control is the student without a teacher, trained as long on the
same samples with their labels. Rows that FOLDER has already are not run again. Writes
FOLDER/table.md, with the command of each row.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

STUDENT = [
    "arch=cnn", "arch.filters=[4,8,16]", "arch.dense=32", "data=npz", "data.train_limit=3000",
    "train.epochs=20",
]  # fmt: skip
TEACHER = ["filters=[16,32,64]", "dropout=0.5"]


def _taught(stage: str, *words: str, teacher: str = "cnn") -> list[str]:
    """The words of a stage whose (first) teacher is the one of this table."""
    keys = [f"opt.{stage}.teacher.{key}" for key in TEACHER]
    return [f"opt={stage}", f"opt.{stage}.teacher={teacher}", *keys, *words]


def _several(*words: str) -> list[str]:
    return _taught("distill", *words, teacher="[cnn,lenet5]")


ROWS = {
    "logits": _taught("distill"),
    "decoupled logits": _taught("distill", "opt.distill.method=dkd"),
    "features": _taught("distill", "opt.distill.method=features"),
    "attention": _taught("distill", "opt.distill.method=attention"),
    "relational": _taught("distill", "opt.distill.method=relational"),
    "similarity": _taught("distill", "opt.distill.method=similarity"),
    "contrastive": _taught("distill", "opt.distill.method=contrastive"),
    "two teachers, average": _several(),
    "two teachers, weighted": _several(
        "opt.distill.combine=weighted", "opt.distill.teacher_weights=[2,1]"
    ),
    "two teachers, per sample": _several("opt.distill.combine=per_sample"),
    "born again": ["opt=born_again"],
    "mutual, two peers": ["opt=mutual", "opt.mutual.peers=2"],
    "exits taught by the end": [
        "opt=early_exit", "opt.early_exit.self_distillation=0.5", "opt.early_exit.epochs=10",
    ],
    "experts of half the classes": _taught("amalgamate"),
    "no labels": _taught("distill", "opt.distill.unlabeled=true"),
    "10 samples a class": _taught(
        "distill", "opt.distill.samples_per_class=10", "opt.distill.unlabeled=true",
        "opt.distill.mixup=1.0", "opt.distill.epochs=200",
    ),
    "1 sample a class": _taught(
        "distill", "opt.distill.samples_per_class=1", "opt.distill.unlabeled=true",
        "opt.distill.mixup=1.0", "opt.distill.epochs=200",
    ),
    "no sample of class 3": _taught(
        "distill", "opt.distill.missing_classes=[3]", "opt.distill.calibrate_bias=true",
        "opt.distill.unlabeled=true", "opt.distill.temperature=8",
    ),
}  # fmt: skip
"""Row -> what it adds to STUDENT."""


def record_of(folder: Path, words: Sequence[str]) -> dict[str, Any]:
    """Runs netopt unless it has been run, and returns its record."""
    file = folder / "record.json"
    if not (file.exists() and json.loads(file.read_text())["status"] == "completed"):
        command = [sys.executable, "-m", "netopt_cli.app", "train", "--quiet", *words]
        subprocess.run([*command, f"hydra.run.dir={folder}"], check=True)
    record: dict[str, Any] = json.loads(file.read_text())
    return record


def line(name: str, record: dict[str, Any], words: Sequence[str]) -> str:
    """A row as Markdown: the stage, the row that it is compared with, and the test of both."""
    rows = record["rows"]
    stage = next(row for row in rows if row["role"] == "stage")
    named = {f"{row['stage']} {row['role']}": row for row in rows} | {"baseline": rows[0]}
    control = named[stage["control"]]["accuracy"]
    key = (stage["stage"], "control", "accuracy")
    tests = {
        (test["stage"], test["against"], test["metric"]): test for test in record["comparisons"]
    }
    interval = " … ".join(f"{100 * tests[key][end]:+.2f}" for end in ("low", "high"))
    return (
        f"| {name} | {_percent(stage['accuracy'])} | {_percent(control)} "
        f"| {100 * tests[key]['difference']:+.2f} ({interval}) | {tests[key]['verdict']} "
        f"| `{shlex.join(words)}` |"
    )


def teacher_line(folder: Path, runs: Path, data: Sequence[str], seeds: int) -> str:
    """The accuracy of the teachers' files on the same test split, as a row."""
    found = []
    for seed in range(seeds):
        (file,) = (runs / f"seed-{seed}" / "teachers").glob("1-*.keras")
        words = ["arch=keras_model", f"arch.path={file}", *data, "train.epochs=0", f"seed={seed}"]
        found.append(record_of(folder / f"seed-{seed}", words)["rows"][0]["accuracy"])
    spread = {"mean": statistics.fmean(found), "sd": statistics.stdev(found), "n": seeds}
    return f"| the teacher | {_percent(spread)} | | | | |"


def _percent(figure: dict[str, Any]) -> str:
    return f"{100 * figure['mean']:.2f} ± {100 * figure['sd']:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="FILE.npz")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of: {', '.join(ROWS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/distillation"))
    options = parser.parse_args()
    folder, file = options.folder.resolve(), f"data.path={options.data.resolve()}"
    chosen = options.rows or list(ROWS)
    lines = [
        f"| n = {options.seeds} | accuracy, % | control, % | change, points (95 %) | verdict "
        "| stage |",
        "|---|---|---|---|---|---|",
    ]
    for name in chosen:
        words = [*STUDENT, file, *ROWS[name], f"seeds={options.seeds}"]
        run = folder / name.replace(",", "").replace(" ", "_")
        record = record_of(run, words)
        if name == "logits":
            data = ["data=npz", "data.train_limit=3000", file]
            lines.append(teacher_line(folder / "teacher", run, data, options.seeds))
        lines.append(line(name, record, ROWS[name]))
        (folder / "table.md").write_text("\n".join(lines) + "\n")
    Console().print("\n".join(lines), soft_wrap=True)


if __name__ == "__main__":
    main()
