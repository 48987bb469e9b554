"""Binding YAML nodes to signatures: types, ranges, names, and what may be named at all."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from netopt_cli.components import Bound, build, check_targets, check_value, import_packages
from netopt_cli.errors import ArchError, ConfigError, InputError

MODULE = """
from __future__ import annotations
from collections.abc import Callable
from dataclasses import dataclass
from os import system
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from pydantic import Field
if TYPE_CHECKING:
    import keras

ORIGIN = "a value"

def net(*, shape: tuple[int, ...], classes: int, width: Annotated[int, Field(ge=1)] = 8,
        depths: tuple[int, ...] = (1,), norm: Literal["batch", "none"] = "batch",
        options: dict[str, float] | None = None) -> keras.Model:
    if width > 1000:
        raise ValueError("too wide")
    return shape, classes, width, depths, norm, options

@dataclass(frozen=True)
class Base:
    epochs: Annotated[int, Field(ge=1)] | None = None

@dataclass(frozen=True)
class Stage(Base):
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.5
    teacher: Callable[..., keras.Model] | None = None
    teachers: tuple[Callable[..., keras.Model], ...] = ()
    path: Path | None = None

def required(rate: float, model: keras.Model = None):
    return rate

def anything(**options):
    return options
"""


@pytest.fixture(autouse=True)
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of a user, `parts.nets`."""
    package = tmp_path / "parts"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(textwrap.dedent(MODULE))
    (package / "broken.py").write_text("import a_package_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "parts"]:
        del sys.modules[name]


def stage(**arguments: Any) -> Any:
    return build({"_target_": "parts.nets.Stage", **arguments}, allow=["parts"], where="opt.prune")


def net(**arguments: Any) -> Any:
    return build(
        OmegaConf.create({"_target_": "parts.nets.net", **arguments}),
        allow=["parts"],
        where="arch",
        shape=(4, 4, 1),
        classes=3,
    )


def test_arguments_of_the_yaml_and_of_the_run_meet() -> None:
    assert net(width=2, depths=[1, 2]) == ((4, 4, 1), 3, 2, (1, 2), "batch", None)
    assert net(options={"a": 1})[-1] == {"a": 1.0}


def test_a_dataclass_is_checked_with_the_fields_it_inherits() -> None:
    assert stage(sparsity=0, epochs=3).epochs == 3
    assert stage(path="a/b").path == Path("a/b")
    with pytest.raises(ConfigError, match=r"opt\.prune\.epochs must be >= 1\. Received: .*=0"):
        stage(epochs=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.2}, "opt.prune.sparsity must be < 1. Received: opt.prune.sparsity=1.2"),
        ({"sparsity": "x"}, "opt.prune.sparsity must be a number. Received: opt.prune.sparsity=x"),
        ({"sparsity": True}, "must be a number. Received: opt.prune.sparsity=true"),
        ({"sparsity": None}, "must be a number. Received: opt.prune.sparsity=null"),
        ({"sparsity": float("nan")}, "opt.prune.sparsity must be finite"),
        ({"epochs": 2.5}, "opt.prune.epochs must be an integer. Received: opt.prune.epochs=2.5"),
        ({"epochs": "3"}, "opt.prune.epochs must be an integer"),
        ({"sparsty": 0.5}, "unknown key 'opt.prune.sparsty'. Did you mean 'sparsity'?"),
        ({"zzz": 1}, "unknown key 'opt.prune.zzz'. Choices: epochs, path, sparsity, teacher"),
        ({"_partial_": True}, "opt.prune._partial_ is not supported"),
        ({"teacher": 3}, "opt.prune.teacher"),
    ],
)
def test_a_bad_argument_of_a_stage(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        stage(**arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "arch.width must be >= 1. Received: arch.width=0"),
        ({"depths": [1, "b"]}, 'arch.depths[1] must be an integer. Received: arch.depths=[1, "b"]'),
        ({"depths": 3}, "arch.depths must be a list. Received: arch.depths=3"),
        ({"norm": "bach"}, "must be 'batch' or 'none'. Received: arch.norm=bach. Did you mean 'ba"),
        ({"options": {"a": "b"}}, "arch.options must be a number"),
        ({"shape": [1]}, "arch.shape cannot be set: the run gives it"),
        ({"width": 2000}, "arch: too wide"),
    ],
)
def test_a_bad_argument_of_a_network(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        net(**arguments)
    assert message in str(caught.value)


def test_an_argument_without_default_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"data\.rate must be given"):
        build({"_target_": "parts.nets.required"}, allow=["parts"], where="data")


def test_a_component_must_take_what_the_run_gives() -> None:
    with pytest.raises(InputError, match=r"parts\.nets\.required must take the argument 'seed'"):
        build({"_target_": "parts.nets.required", "rate": 1}, allow=["parts"], where="data", seed=1)


def test_open_keywords_take_any_name() -> None:
    node = {"_target_": "parts.nets.anything", "a": 1}
    assert build(node, allow=["parts"], where="data", seed=1) == {"a": 1, "seed": 1}


def test_a_type_for_checkers_alone_cannot_be_set() -> None:
    node = {"_target_": "parts.nets.required", "rate": 1, "model": "x"}
    with pytest.raises(InputError, match=r"data\.model cannot be checked: its type names 'keras'"):
        build(node, allow=["parts"], where="data")


def test_a_nested_component_is_checked_now_and_called_later() -> None:
    teacher = {"_target_": "parts.nets.net", "width": 4}
    built = stage(teacher=teacher, teachers=[teacher])
    assert isinstance(built.teacher, Bound)
    assert built.teacher(shape=(2,), classes=5)[:3] == ((2,), 5, 4)
    assert built.teachers[0](shape=(2,), classes=5)[2] == 4
    with pytest.raises(ConfigError, match=r"opt\.prune\.teacher\.width must be >= 1"):
        stage(teacher=teacher | {"width": 0})
    with pytest.raises(ConfigError, match=r"opt\.prune\.teachers\[1\]\.width must be >= 1"):
        stage(teachers=[teacher, teacher | {"width": 0}])
    with pytest.raises(InputError, match=r"^opt\.prune\.teacher: too wide"):
        stage(teacher=teacher | {"width": 2000}).teacher(shape=(2,), classes=5)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.keras", r"^opt\.prune\.teacher\.path does not exist"),
        ("seven.keras", r"^opt\.prune\.teacher: Model 'seven' has 7 outputs, the data 5"),
    ],
)
def test_a_nested_arch_speaks_of_its_own_keys(tmp_path: Path, path: str, message: str) -> None:
    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Dense(7)(inputs), name="seven").save(tmp_path / "seven.keras")
    teacher = {
        "_target_": "netopt_cli.arch.keras_model.build", "path": str(tmp_path / path),
        "head": "keep",
    }  # fmt: skip
    with pytest.raises(ArchError, match=message):
        stage(teacher=teacher).teacher(shape=(2,), classes=5)


def test_partial_checks_and_waits() -> None:
    node = {"_target_": "parts.nets.net", "width": 4}
    bound = build(node, allow=["parts"], where="arch", partial=True)
    assert bound(shape=(1,), classes=2)[1:3] == (2, 4)
    with pytest.raises(ConfigError, match=r"arch\.shape must be given"):
        bound(classes=2)


@pytest.mark.parametrize(
    ("target", "where", "message"),
    [
        ("os.system", "arch", "may not be 'os.system': it must be in netopt_cli.arch"),
        ("netopt_cli.opt.prune.Prune", "arch", "it must be in netopt_cli.arch"),
        ("netopt_cli.arch.cnn.build", "data", "it must be in netopt_cli.data"),
        ("netopt_cli_evil.arch.x", "arch", "may not be"),
        ("partsevil.nets.net", "arch", "may not be"),
        ("keras.saving.load_model", "arch", "may not be"),
        ("keras.utils.get_file", "arch", "may not be"),
        ("keras.models.load_model", "arch", "may not be"),
        ("keras.layers.TFSMLayer", "arch", "may not be"),
        ("keras.layers.deserialize", "arch", "may not be"),
        ("keras.layers.Layer.from_config", "arch", "may not be"),
        ("net", "arch", "must be a dotted name"),
        ("parts..net", "arch", "must be a dotted name"),
        (["parts.nets.net"], "arch", "must be a dotted name"),
        ("parts.nets.nett", "arch", "'parts.nets' has no 'nett'. Did you mean 'net'?"),
        ("parts.net.net", "arch", "there is no module 'parts.net'"),
        ("parts.nets.Stage.epochs", "arch", "there is no module 'parts.nets.Stage'"),
        ("parts.nets.ORIGIN", "arch", "must be a class or a function"),
        ("parts.nets.system", "arch", "'system' is not defined in 'parts.nets'"),
        ("parts.broken.net", "arch", "needs the package 'a_package_nobody_has'"),
    ],
)
def test_what_may_not_be_named(target: Any, where: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        build({"_target_": target}, allow=["parts"], where=where)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{where}._target_")


def test_names_that_a_netopt_module_imports_are_not_components() -> None:
    with pytest.raises(ConfigError, match="is not defined in"):
        build({"_target_": "netopt_cli.engine.settings.dataclass"}, where="train")


def test_a_node_must_be_a_section_with_a_target() -> None:
    with pytest.raises(ConfigError, match=r"arch\._target_ must be given"):
        build({"width": 3}, where="arch")
    with pytest.raises(ConfigError, match=r"arch must be a section with _target_"):
        build("cnn", where="arch")


def test_check_targets_reads_names_only(tmp_path: Path) -> None:
    fine = {
        "arch": {"_target_": "netopt_cli.arch.no_such_module.build"},
        "opt": {"distill": {"_target_": "netopt_cli.opt.distill.Distill",
                            "teacher": {"_target_": "netopt_cli.arch.vgg.build"},
                            "layers": [{"_target_": "keras.layers.Dense"}]}},
    }  # fmt: skip
    check_targets(OmegaConf.create(fine))
    fine["opt"]["distill"]["layers"].append({"_target_": "subprocess.run"})
    with pytest.raises(ConfigError, match=r"opt\.distill\.layers\[1\]\._target_ may not be"):
        check_targets(fine)


def test_a_target_behind_an_interpolation_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHAT", "os.system")
    with pytest.raises(ConfigError, match=r"may not be 'os\.system'"):
        check_targets(OmegaConf.create({"arch": {"_target_": "${oc.env:WHAT}"}}))


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_a_number_is_a_float_and_keeps_its_value(number: float) -> None:
    assert check_value(number, float, "x") == number


@given(st.lists(st.integers(-(2**60), 2**60)))
def test_a_list_becomes_the_tuple_of_its_elements(numbers: list[int]) -> None:
    assert check_value(numbers, tuple[int, ...], "x") == tuple(numbers)


@given(st.text() | st.booleans() | st.none() | st.lists(st.integers()))
def test_nothing_else_is_an_integer(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^x must be an integer"):
        check_value(value, int, "x")


def test_a_type_without_a_form_in_yaml() -> None:
    class Opaque:
        pass

    with pytest.raises(InputError, match="x cannot be set in YAML"):
        check_value(3, Opaque, "x")


def test_packages_that_are_allowed_must_be_there() -> None:
    import_packages(["parts", "parts.nets"])
    assert "parts.nets" in sys.modules
    with pytest.raises(ConfigError, match="--allow other: there is no package 'other'"):
        import_packages(["other"])
    with pytest.raises(InputError, match=r"parts\.broken needs the package 'a_package_nobody_has'"):
        import_packages(["parts.broken"])
