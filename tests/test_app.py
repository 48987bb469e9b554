"""The command line: help, unknown words, exit codes, and what an exception becomes."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from netopt_cli import __version__, app, failures
from netopt_cli.command_table import COMMANDS
from netopt_cli.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_WRONG_INPUT,
    ConfigError,
    StorageError,
)


def imported_by(*words: str) -> set[str]:
    """The top-level modules that a command line imports, with netopt's own in full."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "netopt_cli.app", *words],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "100"},
    )
    return {line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if "|" in line}


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_and_version_import_the_standard_library_alone(words: list[str]) -> None:
    modules = imported_by(*words)
    ours = {name for name in modules if name.startswith("netopt_cli")}
    assert ours == {
        "netopt_cli",
        "netopt_cli.failures",
        "netopt_cli.errors",
        "netopt_cli.command_table",
    }
    assert not {"hydra", "tensorflow", "keras", "omegaconf", "rich", "yaml", "numpy"} & modules


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["show", "arch/cnn"],
        ["train", "--cfg", "job", "arch=cnn", "opt=[distill,prune]"],
        ["__complete", "netopt train arch="],
    ],
)
def test_configuration_commands_do_not_import_tensorflow(words: list[str]) -> None:
    assert not {"tensorflow", "keras"} & imported_by(*words)


def test_completion_does_not_import_hydra() -> None:
    assert not {"hydra", "omegaconf", "pydantic"} & imported_by("__complete", "netopt train train.")


def test_help_names_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--help"]) == EXIT_OK
    text = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert (f"  {name} " in text) == bool(command.help)
    for code in (EXIT_OK, EXIT_FAILED, EXIT_WRONG_INPUT, EXIT_INTERRUPTED):
        assert f"  {code} " in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_parts_and_the_help_of_the_table(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module = COMMANDS[name].load()
    assert COMMANDS[name].help == module.HELP
    assert "--help" in module.parser().options()
    assert app.main([name, "--help"]) == EXIT_OK
    assert f"netopt {name}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--version"]) == EXIT_OK
    assert capsys.readouterr().out == f"netopt {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "error: unknown command 'trian'. Did you mean 'train'?\n"),
        (["arch=cnn"], "Did you mean 'netopt train arch=cnn'?"),
        (["--versoin"], "error: unknown option '--versoin'. Did you mean '--version'?\n"),
        (["train", "--jsn"], "error: unknown option '--jsn'. Did you mean '--json'?\n"),
        (["train", "--cfg", "jobs"], "error: argument --cfg/-c: invalid choice: 'jobs'"),
        (["list", "arch", "opt"], "error: unexpected argument 'opt'"),
        ([], "Usage: netopt COMMAND"),
    ],
)
def test_wrong_words_are_answered_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(words) == EXIT_WRONG_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "Traceback" not in captured.err


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def main(argv: list[str]) -> int:
        raise error

    command = SimpleNamespace(help="", load=lambda: SimpleNamespace(main=main))
    monkeypatch.setitem(COMMANDS, "boom", command)
    return app.main(["boom"])


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("seed must be >= 0"), EXIT_WRONG_INPUT, "error: seed must be >= 0\n"),
        (StorageError("cannot write"), EXIT_FAILED, "error: cannot write\n"),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, "interrupted\n"),
        (
            OSError(28, "No space left on device", "runs/x"),
            EXIT_FAILED,
            "error: cannot write runs/x: No space left on device\n",
        ),
    ],
)
def test_expected_errors_are_their_message(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert raising(error, monkeypatch) == code
    assert capsys.readouterr().err == message


def test_an_internal_error_keeps_its_traceback_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("NETOPT_TRACEBACK", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert raising(KeyError("gone"), monkeypatch) == EXIT_FAILED
    said = capsys.readouterr().err
    assert said.startswith("internal error: KeyError: 'gone'\nThe traceback is in ")
    (kept,) = tmp_path.iterdir()
    assert str(kept) in said
    assert "Traceback (most recent call last)" in kept.read_text()


def test_netopt_traceback_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NETOPT_TRACEBACK", "1")
    assert raising(KeyError("gone"), monkeypatch) == EXIT_FAILED
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert said.endswith("internal error: KeyError: 'gone'\n")


def test_an_internal_error_is_shown_when_it_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NETOPT_TRACEBACK", raising=False)
    assert failures.report(KeyError("gone"), log=tmp_path / "no" / "run.log") == EXIT_FAILED
    assert "internal error: KeyError: 'gone'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["list"], ["train", "--cfg", "job"]])
def test_a_reader_that_leaves_is_answered_with_silence(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(
        [sys.executable, "-m", "netopt_cli.app", *words],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (run.returncode, run.stderr) == (EXIT_FAILED, "")
