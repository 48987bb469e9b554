"""Every config of the group composes and fits the signature of its loader."""

import importlib
import inspect
from pathlib import Path
from typing import get_type_hints

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from netopt_cli.augment import augmentation
from netopt_cli.spectrum_augment import spectrum_augmentation
from netopt_cli.text_splits import TextOptions

FOLDER = Path(__file__).parents[2] / "configs"
NAMES = sorted(file.stem for file in (FOLDER / "data").glob("[!_]*.yaml"))


def composed(name, overrides=()):
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        config = compose(overrides=["+task=classification", f"+data={name}", *overrides])
    return OmegaConf.to_container(config.data)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_fits_its_loader(name):
    node = composed(name)
    module, function = node.pop("_target_").rsplit(".", 1)
    assert module == f"netopt_cli.data.{name}"
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    assert {"seed", *node} == set(parameters) - {"task"}
    for key, value in node.items():
        default = parameters[key].default
        if key == "augment":
            augment = spectrum_augmentation if name == "audio_folder" else augmentation
            assert augment(**value) is None
        elif key == "text":
            assert value.keys() == get_type_hints(TextOptions).keys()
        elif default is inspect.Parameter.empty:
            assert value == "???"
        else:
            assert value == (list(default) if isinstance(default, tuple) else default)


def test_augmentation_can_be_set_key_by_key():
    node = composed("digits", ["data.augment.shift_fraction=0.1"])
    assert node["augment"]["shift_fraction"] == 0.1
    assert node["augment"]["flip_horizontal"] is False


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_describes_the_set(name):
    first = (FOLDER / "data" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) <= 110
