"""Lines of the list of runs: conditions, moments, order."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from stored_runs import judged, rows, write_run, write_seeds

from netopt_cli.errors import InputError
from netopt_cli.run_dir import held
from netopt_cli.run_list import (
    COLUMNS,
    Condition,
    has_stages,
    header,
    lines,
    metrics_of,
    moment,
    ordered,
)
from netopt_cli.text_table import spans

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("accuracy>0.97", True),
        ("accuracy > 0.98", False),
        ("accuracy>=0.98", True),
        ("accuracy=0.98", True),
        ("accuracy!=0.98", False),
        ("size_bytes<1e6", True),
        ("packed_bytes<1e6", False),  # the line has none
        ("latency_ms<=0.1", True),
        ("arch=mlp", True),
        ("arch!=mlp", False),
        ("started>2026-11", True),
    ],
)
def test_conditions(text: str, met: bool) -> None:
    line = {"accuracy": 0.98, "size_bytes": 4000, "latency_ms_median": 0.1, "arch": "mlp",
            "started": "2026-11-24T10:00:00"}  # fmt: skip
    assert Condition.read(text)(line) == met


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("accurcy>1", "Did you mean 'accuracy'"),
        ("accuracy", "a condition is COLUMN"),
        ("accuracy>", "a condition is COLUMN"),
        ("accuracy>97%", "compared with a number"),
    ],
)
def test_a_wrong_condition_says_the_rule(text: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        Condition.read(text)


def test_moments() -> None:
    assert moment("2d", NOW) == datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert moment("30m", NOW) == datetime(2026, 11, 24, 11, 30, tzinfo=UTC)
    assert moment("2026-11-01T00:00+00:00", NOW) == datetime(2026, 11, 1, tzinfo=UTC)
    with pytest.raises(InputError, match="--since takes a date"):
        moment("yesterday", NOW)


def test_lines_of_runs_seeds_and_what_is_broken(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_seeds(tmp_path / "b", {0: rows(prune=0.9), 1: rows(prune=0.8), 4: rows(prune=0.7)})
    write_run(tmp_path / "c", status="failed", error="diverged", found=[])
    (write_run(tmp_path / "d") / "record.json").write_text('{\n  "status": "runn')
    write_run(tmp_path / "k", status="running", found=[])
    write_run(tmp_path / "r", status="running", found=[])
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "run.log").write_text("")
    with held(tmp_path / "r"):
        found = {line["run"]: line for line in lines(tmp_path)}
    assert {name: line["status"] for name, line in found.items()} == {
        "a": "completed", "b": "completed", "c": "failed", "d": "broken", "e": "no record",
        "k": "interrupted", "r": "running",
    }  # fmt: skip
    assert found["b"]["seed"] == "0-1,4"
    assert found["b"]["accuracy"] == pytest.approx(0.8)
    assert found["a"]["stage"] == "prune" and found["a"]["size_packed_bytes"] == 800
    assert found["c"]["error"] == "diverged" and "accuracy" not in found["c"]
    assert all(set(line) <= set(COLUMNS) for line in found.values())


def test_runs_of_several_tasks_have_their_metrics(tmp_path: Path) -> None:
    write_run(tmp_path / "a", found=judged("rmse", 4, 4, 3.5, mae=2.5))
    write_run(tmp_path / "b")
    write_run(tmp_path / "c", status="failed", found=[])
    write_run(tmp_path / "d", found=judged("quality", 1, 1, 1))
    found = list(lines(tmp_path))
    assert [line.get("metric") for line in found] == ["rmse", "accuracy", None, None]
    assert "unknown metric" in found[3]["error"] and found[3]["status"] == "broken"
    assert "accuracy" not in found[0]
    place = COLUMNS.index("accuracy")
    assert header(found)[place : place + 4] == ["rmse", "mae", "accuracy", COLUMNS[place + 1]]
    assert header(found[1:2]) == header([]) == list(COLUMNS)
    assert metrics_of(found) == ["rmse", "accuracy"]
    for text, met in (("rmse<4", True), ("RMSE<3", False), ("metric=rmse", True)):
        assert [Condition.read(text)(line) for line in found[:2]] == [met, False]
    assert Condition.read("NDCG@10>0.5").column == "ndcg_at_10"
    assert ordered(found, "rmse")[0]["run"] == "a"


def test_a_parent_of_seeds_lists_its_seeds(tmp_path: Path) -> None:
    write_seeds(tmp_path / "b", {0: rows(prune=0.9), 1: rows(prune=0.8)})
    found = list(lines(tmp_path / "b"))
    assert [(line["run"], line["accuracy"]) for line in found] == [("seed-0", 0.9), ("seed-1", 0.8)]


def test_lines_without_the_column_come_last_either_way() -> None:
    found = [{"run": "a", "macs": 2}, {"run": "b"}, {"run": "c", "macs": 1}]
    assert [line["run"] for line in ordered(found, "macs")] == ["c", "a", "b"]
    assert [line["run"] for line in ordered(found, "macs", reverse=True)] == ["a", "c", "b"]


def test_stages_and_spans() -> None:
    assert has_stages({"opt": "prune,quantize"}, "[quantize]")
    assert not has_stages({"opt": "prune_50"}, "prune")
    assert spans([4, 0, 1, 2, 7]) == "0-2,4,7"
