"""Every kind of task from the command line: trained, pruned, quantized, measured on its file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_data
import pytest
from command_line import CommandLine

SHORT = [
    "train.batch_size=32", "train.learning_rate=0.005", "train.steps_per_call=10", "control=false",
    "target.warmup_runs=2", "target.timed_runs=20", "--quiet", "--json",
]  # fmt: skip


def rows_of(netopt: CommandLine, *words: str) -> list[dict[str, Any]]:
    done = netopt("train", *words, *SHORT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-2])["rows"]


PRUNED = ["opt=[prune,quantize]", "opt.prune.sparsity=0.5", "opt.prune.epochs=1"]
CUT = [
    "opt=[structured,prune,quantize]", "opt.structured.ratio=0.3", "opt.structured.epochs=1",
    *PRUNED[1:],
]  # fmt: skip

CASES: dict[str, tuple[Callable[[Path], Path] | None, list[str], str, float]] = {
    "regression": (
        made_data.diabetes_file,
        ["task=regression", "arch=mlp", "arch.hidden=[64]", "train.epochs=15",
         *PRUNED[:2], "opt.prune.epochs=5"],
        "rmse", 75.0,
    ),
    "multi_label": (
        made_data.several_digits_file,
        ["task=multi_label", "arch=mlp", "arch.hidden=[32]", "train.epochs=6", *PRUNED],
        "f1_macro", 0.6,
    ),
    "anomaly": (
        None,
        ["task=anomaly", "data=digits", "task.normal_classes=[0,1]", "arch=autoencoder",
         "arch.hidden=[16,4,16]", "train.epochs=12", *CUT],
        "auroc", 0.8,
    ),
    "verification": (
        None,
        ["task=verification", "data=digits", "task.held_out_classes=[0,4]", "data.train_limit=300",
         "arch=siamese", "arch.encoder=mlp", "arch.encoder.hidden=[32]", "arch.embedding=16",
         "train.epochs=4", *CUT],
        "eer", 0.35,
    ),
    "segmentation": (
        made_data.pixels_file,
        ["task=segmentation", "arch=unet", "arch.filters=[8,8]", "train.epochs=5", *CUT],
        "mean_iou", 0.4,
    ),
    "tagging": (
        made_data.steps_file,
        ["task=tagging", "arch=rnn", "arch.units=[48]", "arch.per_step=true", "train.epochs=5",
         *PRUNED],
        "token_accuracy", 0.8,
    ),
    "series": (
        made_data.steps_file,
        ["task=tagging", "arch=cnn1d", "arch.filters=[16,16]", "arch.kernel_sizes=[5,3]",
         "arch.per_step=true", "train.epochs=5", *CUT],
        "token_accuracy", 0.8,
    ),
    "fields": (
        made_data.fields_file,
        ["data=npz_fields", "data.fields={image:values,text:tokens}", "arch=fusion",
         "arch.filters=[8]", "arch.hidden=[16]", "train.epochs=10", *CUT],
        "accuracy", 0.55,
    ),
    "detection": (
        made_data.coco_folder,
        ["data=coco_folder", "data.image_size=[32,32]", "data.channels=1", "task.strides=[4]",
         "task.sizes=[2.0]", "arch=ssd", "arch.backbone.filters=[8,16]", "arch.width=16",
         "train.epochs=8", *CUT],
        "map_50", 0.2,
    ),
}  # fmt: skip


QUICK = {"regression", "multi_label", "detection"}


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_a_task_is_learned_pruned_and_quantized(
    name: str, netopt: CommandLine, tmp_path: Path
) -> None:
    writer, words, metric, wanted = CASES[name]
    if writer is not None:
        path = writer(tmp_path)
        words = [*words, f"data.path={path}"]
        words += [] if any(word.startswith("data=") for word in words) else ["data=npz"]
    rows = rows_of(netopt, *words)
    lower = metric in {"rmse", "eer"}
    assert {row["metric"] for row in rows} == {metric}
    assert rows[0][metric] <= wanted if lower else rows[0][metric] >= wanted
    by_stage = {row["stage"]: row for row in rows}
    assert by_stage["prune"]["sparsity"] > 0.4
    assert by_stage["quantize"]["size_bytes"] < by_stage["prune"]["size_bytes"]
    if "structured" in by_stage:
        assert by_stage["structured"]["params"] < rows[0]["params"]
