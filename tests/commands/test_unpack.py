"""`netopt unpack`."""

from pathlib import Path

import pytest

from netopt_cli import app
from netopt_cli.errors import EXIT_OK, EXIT_WRONG_INPUT
from netopt_cli.export.packed import pack

CONTENT = b"what a network is made of" * 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.packed"
    path.write_bytes(pack(CONTENT))
    return path


def test_the_file_is_rebuilt_beside_the_packed_one(
    file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["unpack", str(file)]) == EXIT_OK
    assert file.with_suffix(".tflite").read_bytes() == CONTENT
    assert f"500 bytes out of {file.stat().st_size}" in capfd.readouterr().out


def test_the_output_can_be_named_and_is_not_replaced_unasked(
    file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "own.tflite"
    output.write_bytes(b"old")
    assert app.main(["unpack", str(file), "-o", str(output)]) == EXIT_WRONG_INPUT
    assert "own.tflite exists: choose another --output" in capfd.readouterr().err
    assert output.read_bytes() == b"old"
    assert app.main(["unpack", str(file), "-o", str(output), "--force"]) == EXIT_OK
    assert output.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.packed"], "Cannot read nowhere.packed: No such file or directory"),
        (["{file}", "-o", "nowhere/own.tflite"], "must be in a directory that exists"),
        (["{text}"], "Not a packed file"),
        (["{cut}"], "The packed file is damaged"),
    ],
)
def test_wrong_words(
    words: list[str], message: str, file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("some text")
    (tmp_path / "cut").write_bytes(file.read_bytes()[:-5])
    places = {name: tmp_path / name for name in ("text", "cut")} | {"file": file}
    assert app.main(["unpack", *(word.format(**places) for word in words)]) == EXIT_WRONG_INPUT
    captured = capfd.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not list(tmp_path.glob("*.tflite"))
