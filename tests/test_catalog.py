"""What configs there are, and their one-line descriptions."""

from pathlib import Path

import pytest
from user_configs import write_configs

from netopt_cli import catalog
from netopt_cli.errors import ConfigError


def test_the_shipped_groups_and_choices() -> None:
    folders = catalog.config_folders()
    assert {"arch", "data", "opt", "target", "train"} <= set(catalog.groups(folders))
    assert {"none", "prune", "distill", "quantize"} <= set(catalog.choices("opt", folders))


def test_every_shipped_choice_has_a_description() -> None:
    folders = catalog.config_folders()
    for group in catalog.groups(folders):
        for name, path in catalog.choices(group, folders).items():
            assert len(catalog.description(path)) > 10, f"{group}/{name}"


def test_files_of_the_user_join_and_go_first(tmp_path: Path) -> None:
    own = write_configs(
        tmp_path, arch__cnn="# Mine.\n", arch__sub__deep="# Deep.\n", arch___base=""
    )
    folders = catalog.config_folders(own)
    archs = catalog.choices("arch", folders)
    assert {"mine", "mlp", "sub/deep"} <= set(archs)
    assert "_base" not in archs
    assert catalog.description(archs["cnn"]) == "Mine."


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("# @package opt.x\n# What it is.\n# More.\na: 1\n", "What it is."),
        ("\n#  Padded.  \n", "Padded."),
        ("a: 1\n# Too late.\n", ""),
        ("", ""),
    ],
)
def test_the_description_is_the_first_comment(text: str, description: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert catalog.description(path) == description


def test_unknown_words_get_the_nearest() -> None:
    folders = catalog.config_folders()
    with pytest.raises(ConfigError, match=r"unknown group 'arhc'\. Did you mean 'arch'\?"):
        catalog.choices("arhc", folders)
    with pytest.raises(ConfigError, match=r"unknown arch 'cnnn'\. Did you mean 'cnn'\?"):
        catalog.find("arch", "cnnn", folders)
