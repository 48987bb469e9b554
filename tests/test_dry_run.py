"""`netopt train --dry-run`: what it predicts, what it finds, and that it leaves nothing."""

import json
from pathlib import Path

import pytest
from command_line import CommandLine
from rich.console import Console

from netopt_cli import dry_run, experiment
from netopt_cli.config import compose
from netopt_cli.errors import EXIT_OK, EXIT_WRONG_INPUT

SMALL = ["arch=mlp", "arch.hidden=[32,16]", "data.train_limit=200", "train.epochs=2"]


def forecast(*overrides: str) -> dry_run.Report:
    return dry_run.forecast(compose([*SMALL, *overrides]), allow=())


def by_stage(report: dry_run.Report) -> dict[str, dry_run.Forecast]:
    return {row.stage: row for row in report.stages}


def test_what_is_predicted_is_what_a_run_measures(tmp_path: Path) -> None:
    overrides = ["opt=[regularize,prune,qat]", "opt.prune.epochs=1", "opt.qat.epochs=1",
                 "control=false", "target.warmup_runs=2", "target.timed_runs=30"]  # fmt: skip
    predicted = forecast(*overrides)
    rows = experiment.run(
        compose([*SMALL, *overrides]), tmp_path,
        allow=(), command=["test"], messages=Console(quiet=True), quiet=True,
    ).rows  # fmt: skip
    assert predicted.problems == []
    assert [row.stage for row in predicted.stages] == [row["stage"] for row in rows]
    for before, after in zip(predicted.stages, rows, strict=True):
        assert before.params == after["params"]
        assert before.macs == after["macs"]
        assert before.nonzero_params == pytest.approx(after["nonzero_params"], rel=0.02)
        assert before.size_bytes == after["size_bytes"]
        assert before.size_gzip_bytes == pytest.approx(after["size_gzip_bytes"], rel=0.05)
    epochs = {name: row.epochs for name, row in by_stage(predicted).items()}
    assert epochs == {"baseline": 2, "regularize": 2, "prune": 1, "qat": 1}
    assert by_stage(predicted)["qat"].scheme == "int8"


def test_further_formats_have_their_bytes() -> None:
    (baseline,) = forecast("export=[litert,onnx,saved_model]").stages
    assert baseline.size_bytes is not None
    assert baseline.further_bytes["onnx"] == pytest.approx(baseline.size_bytes, rel=0.1)
    assert baseline.further_bytes["saved_model"] > baseline.size_bytes


def test_every_problem_is_found() -> None:
    report = forecast(
        "opt=[prune,regularize,cluster,distill]", "opt.prune.sparsity=1.5",
        "opt.regularize.start=scratch", "opt.cluster.exclude=['*']",
        "opt.distill.start=scratch", "opt.distill.teacher=mlp",
    )  # fmt: skip
    assert [problem.where for problem in report.problems] == [
        "opt.prune", "opt.cluster", "opt.distill",
    ]  # fmt: skip
    assert "sparsity must be < 1" in report.problems[0].reason
    assert "would throw away" in report.problems[2].reason
    rows = by_stage(report)
    assert list(rows) == ["baseline", "prune", "regularize", "cluster", "distill"]
    assert [row.stage for row in rows.values() if row.params is None] == [
        "prune", "cluster", "distill",
    ]  # fmt: skip
    assert rows["regularize"].params == rows["baseline"].params


def test_problems_before_any_stage_are_all_found() -> None:
    report = forecast("train.batch_size=0", "data.train_limit=-1", "arch.hidden=[0]")
    assert {"train", "data", "arch"} <= {problem.where for problem in report.problems}
    assert report.stages == []


def test_a_network_without_a_file_is_a_problem(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Lambda(lambda x: x, name="same")(inputs)
    sorted_ = keras.ops.linalg.svd(x[..., 0], compute_uv=False)
    keras.Model(inputs, keras.layers.Dense(10)(sorted_)).save(tmp_path / "svd.keras")
    report = dry_run.forecast(
        compose(["arch=keras_model", f"arch.path={tmp_path / 'svd.keras'}"]), allow=()
    )
    assert report.problems and report.problems[0].where == "arch"


def test_from_the_command_line(netopt: CommandLine) -> None:
    done = netopt("train", *SMALL, "opt=[prune,distill]", "opt.distill.teacher=mlp", "--dry-run")
    assert done.returncode == EXIT_OK, done.stderr
    first, header, _, *rest = done.stdout.splitlines()
    assert first.strip() == "mlp on digits, seed 0"
    assert header.split() == [
        "stage", "epochs", "params", "nonzero", "MACs", "scheme", "file", "gzip", "packed",
    ]  # fmt: skip
    assert [line.split()[:2] for line in rest[:3]] == [
        ["baseline", "2"], ["prune", "5"], ["distill", "2"],
    ]  # fmt: skip
    assert "prune: later stages keep its zeros" in rest
    assert "distill: teacher_epochs: 2" in rest
    assert any("Accuracy and latency cannot be predicted" in line for line in rest)
    assert "%" not in done.stdout
    assert done.stderr == ""
    assert not list(netopt.folder.iterdir())


@pytest.mark.slow
def test_each_cell_of_a_sweep_as_json(netopt: CommandLine) -> None:
    done = netopt(
        "train", "-m", *SMALL, "opt=[prune,regularize]", "opt.regularize.start=current,scratch",
        "seed=0,1", "--dry-run", "--json",
    )  # fmt: skip
    assert done.returncode == EXIT_WRONG_INPUT
    cells = [json.loads(line) for line in done.stdout.splitlines()]
    assert [cell["status"] for cell in cells] == ["ok", "ok", "incompatible", "incompatible"]
    assert ["seed=1" in cell["overrides"] for cell in cells] == [False, True, False, True]
    assert [row["stage"] for row in cells[0]["stages"]] == ["baseline", "prune", "regularize"]
    (problem,) = cells[3]["problems"]
    assert problem["where"] == "opt.regularize"
    assert not any("accuracy" in row for cell in cells for row in cell["stages"])
    lines = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "incompatible in cell 3 of 4, opt.regularize",
        "incompatible in cell 4 of 4, opt.regularize",
    ]
    assert not list(netopt.folder.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--dry-run", "arch=cnnn"], "Did you mean 'cnn'?"),
        (["train", "--dry-run", "--cfg", "job"], "--dry-run goes without --cfg"),
        (["train", "--dry-run", "-m", "train.learning_rate=interval(0,1)"], "give train.learning"),
        (["launch", "train", "--dry-run"], "--dry-run needs no workers"),
    ],
)
def test_wrong_words(words: list[str], said: str, netopt: CommandLine) -> None:
    done = netopt(*words)
    assert done.returncode == EXIT_WRONG_INPUT
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert not list(netopt.folder.iterdir())
