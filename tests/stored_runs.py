"""Run directories as netopt leaves them, without training anything."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONFIG = {
    "seed": 0,
    "opt": {"prune": {"_target_": "netopt_cli.opt.prune.Prune", "sparsity": 0.8}},
    "arch": {"_target_": "netopt_cli.arch.mlp.build", "hidden": [300, 100]},
    "data": {"_target_": "netopt_cli.data.digits.load"},
    "train": {"_target_": "netopt_cli.engine.settings.TrainSettings", "epochs": 5},
}
FIGURES = {
    "accuracy": 0.95, "loss": 0.2, "params": 1000, "trainable_params": 1000, "nonzero_params": 1000,
    "sparsity": 0.0, "macs": 5000, "size_bytes": 4000, "size_gzip_bytes": 3000,
    "size_packed_bytes": 2500, "latency_ms_median": 0.02, "latency_ms_p90": 0.03,
    "peak_memory_bytes": 5e6, "parity_max_abs": 1e-6, "train_seconds": 3.5,
}  # fmt: skip


def row(stage: str, role: str, control: str | None = None, **figures: Any) -> dict[str, Any]:
    return {"stage": stage, "role": role, "control": control} | FIGURES | figures


def rows(baseline: float = 0.95, prune: float = 0.94, **figures: Any) -> list[dict[str, Any]]:
    """A pruning run: baseline, control, stage; `figures` are those of the stage."""
    pruned = {"accuracy": prune, "sparsity": 0.8, "size_packed_bytes": 800} | figures
    return [
        row("baseline", "baseline", accuracy=baseline),
        row("prune", "control", "baseline", accuracy=baseline + 0.002),
        row("prune", "stage", "prune control", **pruned),
    ]


def judged(metric: str, *scores: float, **figures: Any) -> list[dict[str, Any]]:
    """The rows of a pruning run of another task: the scores of baseline, control and stage;
    `figures` are those of the stage."""
    found = rows(**figures)
    for each, score in zip(found, scores, strict=True):
        del each["accuracy"]
        each |= {"metric": metric, metric: score}
    return found


def write_run(
    folder: Path,
    seed: int = 0,
    found: Sequence[Mapping[str, Any]] | None = None,
    *,
    status: str = "completed",
    config: Mapping[str, Any] | None = None,
    fingerprint: str = "f00d",
    **facts: Any,
) -> Path:
    """Writes a run directory, with the layout of `netopt_cli.record`."""
    folder.mkdir(parents=True)
    config = dict(CONFIG if config is None else config) | {"seed": seed}
    content = {
        "status": status,
        "error": None,
        "command": ["netopt", "train"],
        "seed": seed,
        "started": "2026-11-24T10:00:00.000+00:00",
        "environment": {"processor": "A", "cores": 2, "packages": {"keras": "3.15.0"}},
        "git": {"commit": "abc", "branch": "main", "dirty": False},
        # As in a real record, with keys inside that are those of the top level too.
        "stages": {"1-prune": {"rows": [1], "config": {"seed": 9}, "notes": ['\n  "rows": []']}},
        "config": config,
        "dataset": {"name": "digits", "test": 359, "fingerprint_sha256": fingerprint},
        "pipeline": list(config["opt"]),
        "wall_seconds": 12.5,
        "rows": [{"seed": seed} | dict(each) for each in (rows() if found is None else found)],
        "exports": [],
    } | facts
    (folder / "record.json").write_text(json.dumps(content, indent=2))
    return folder


def write_seeds(
    folder: Path,
    found: Mapping[int, Sequence[Mapping[str, Any]]],
    *,
    failed: Mapping[str, str] | None = None,
    **given: Any,
) -> Path:
    """Writes a parent of seeds, with the rows of each seed."""
    folder.mkdir(parents=True)
    for seed, of_seed in found.items():
        write_run(folder / f"seed-{seed}", seed, of_seed, **given)
    first = next(iter(found.values()))
    content = {
        "kind": "seeds",
        "status": "failed" if failed else "completed",
        "seeds": list(found),
        "runs": [f"seed-{seed}" for seed in found],
        "failed": dict(failed or {}),
        "started": "2026-11-24T11:00:00.000+00:00",
        "wall_seconds": 60.0,
        "config": dict(given.get("config") or CONFIG),
        "rows": [
            {
                name: {"mean": sum(values := [each[index][name] for each in found.values()])
                       / len(values), "n": len(values), "values": values}
                if isinstance(value, int | float) and name != "macs" else value
                for name, value in of_first.items()
            }
            for index, of_first in enumerate(first)
        ],
    }  # fmt: skip
    (folder / "record.json").write_text(json.dumps(content, indent=2))
    return folder


def drawn(seeds: Sequence[int], mean: float, sd: float, source: int) -> dict[int, list]:
    """Rows of seeds whose accuracies are drawn around a mean."""
    random_ = random.Random(source)
    return {
        seed: rows(baseline=random_.gauss(mean, sd), prune=random_.gauss(mean, sd))
        for seed in seeds
    }
