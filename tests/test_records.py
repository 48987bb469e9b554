"""Reading records: no more than is asked for, and what is broken is said to be."""

import json
from pathlib import Path

import pytest
from stored_runs import rows, write_run, write_seeds

from netopt_cli.errors import RecordError
from netopt_cli.records import StoredRun, expand, find


def test_a_key_is_that_of_the_top_level(tmp_path: Path) -> None:
    run = StoredRun(write_run(tmp_path / "a", seed=3))
    content = json.loads((tmp_path / "a" / "record.json").read_text())
    for key, value in content.items():
        assert run.get(key, object) == value
    assert (run.arch, run.data, run.stages) == ("mlp", "digits", ["prune"])
    assert run.rows[2]["accuracy"] == 0.94


def test_a_record_of_another_shape_is_read_too(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a") / "record.json"
    for shape in (None, 4):
        path.write_text(json.dumps(json.loads(path.read_text()), indent=shape) + "\n")
        assert StoredRun(path.parent).rows[2]["accuracy"] == 0.94


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "ends in the middle"),
        ('{\n  "status": "completed",\n  "rows": [', "ends in the middle"),
        ("[]", "no JSON object"),
        ('{\n  "rows": [1, }', "no JSON"),
        ('{\n  "rows": {"a": 1}\n}', "'rows' must be a list"),
        ('{\n  "rows": [{"accuracy": 1}]\n}', "a stage and a role"),
        ('{"rows": 3}', "'rows' must be a list"),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, text: str, rule: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(RecordError, match=rule) as raised:
        StoredRun(tmp_path).rows  # noqa: B018
    assert str(tmp_path) in str(raised.value)


def test_runs_are_found_in_sweeps_and_not_inside_one_another(tmp_path: Path) -> None:
    write_run(tmp_path / "b")
    write_run(tmp_path / "sweep" / "0-mlp")
    write_seeds(tmp_path / "seeds", {0: rows(), 1: rows()})
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.log").write_text("")
    (tmp_path / "latest").symlink_to("b")
    (tmp_path / "notes").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in find(tmp_path)]
    assert found == ["b", "begun", "seeds", "sweep/0-mlp"]


def test_words_are_folders_sweeps_and_globs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/a", "runs/b", "runs/sweep/0", "runs/sweep/1"):
        write_run(Path(name))
    Path("runs/latest").symlink_to("b")
    assert expand(["runs/latest", "runs/[ab]", "runs/sweep"]) == [
        Path("runs/latest"), Path("runs/a"), Path("runs/sweep/0"), Path("runs/sweep/1")
    ]  # fmt: skip
    with pytest.raises(RecordError, match="Did you mean 'runs/sweep'"):
        expand(["runs/sweeps"])
    with pytest.raises(RecordError, match="netopt runs"):
        expand(["elsewhere/x"])
