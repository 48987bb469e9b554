"""`netopt list`, `netopt show` and `netopt completion`."""

from pathlib import Path

import pytest
from user_configs import FILES, write_configs

from netopt_cli import app, catalog, completion
from netopt_cli.errors import EXIT_OK, EXIT_WRONG_INPUT


def test_list_shows_every_choice_with_its_description(capfd: pytest.CaptureFixture[str]) -> None:
    assert app.main(["list"]) == EXIT_OK
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    folders = catalog.config_folders()
    for group in catalog.groups(folders):
        assert group in lines
        for name, path in catalog.choices(group, folders).items():
            assert f"{name} {' '.join(catalog.description(path).split())}" in lines


def test_list_of_one_group_with_the_users_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = write_configs(tmp_path)
    assert app.main(["list", "arch", "--config-dir", str(own)]) == EXIT_OK
    out = capfd.readouterr().out
    assert "A network of the user." in out
    assert "prune" not in out


@pytest.mark.parametrize("choice", ["opt/prune", "opt=prune", "+opt=prune"])
def test_show_prints_the_file_as_it_is(choice: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert app.main(["show", choice]) == EXIT_OK
    path = catalog.find("opt", "prune", catalog.config_folders())
    assert capfd.readouterr().out == path.read_text(encoding="utf-8")


def test_show_a_file_of_the_user(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own = write_configs(tmp_path)
    assert app.main(["show", "-cd", str(own), "arch/mine"]) == EXIT_OK
    assert capfd.readouterr().out.split() == FILES["arch/mine.yaml"].split()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "arch/cnnn"], "unknown arch 'cnnn'. Did you mean 'cnn'?"),
        (["show", "arhc/cnn"], "unknown group 'arhc'. Did you mean 'arch'?"),
        (["show", "arch"], "show needs GROUP/NAME; the choices of arch: alexnet, autoencoder"),
        (["list", "optt"], "unknown group 'optt'. Did you mean 'opt'?"),
        (["list", "-cd", "nowhere"], "--config-dir must be a directory. Received: nowhere"),
        (["completion", "sh"], "invalid choice: 'sh'"),
    ],
)
def test_wrong_words(words: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert app.main(words) == EXIT_WRONG_INPUT
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err


@pytest.mark.parametrize("shell", completion.SCRIPTS)
def test_completion_prints_the_script(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert app.main(["completion", shell]) == EXIT_OK
    assert capfd.readouterr().out == completion.SCRIPTS[shell]
