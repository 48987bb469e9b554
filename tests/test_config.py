"""Overrides in every accepted spelling, their order, and what a wrong one is answered."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from user_configs import write_configs

from netopt_cli.config import compose, composer
from netopt_cli.errors import EXIT_WRONG_INPUT, ConfigError

STAGES = ("regularize", "quantize_friendly", "distill", "prune", "quantize")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return write_configs(tmp_path / "mine")


def yaml_of(*overrides: str, config_dir: Path | None = None, allow: tuple[str, ...] = ()) -> str:
    return OmegaConf.to_yaml(compose(overrides, config_dir=config_dir, allow=allow))


def refusal(*overrides: str, multirun: bool = False, config_dir: Path | None = None) -> str:
    with (
        pytest.raises(ConfigError) as caught,
        composer(config_dir=config_dir) as composing,
    ):
        lines = composing.normalise(overrides, multirun=multirun)
        for cell in composing.cells(lines):
            composing.check(composing.compose(cell))
    assert caught.value.exit_code == EXIT_WRONG_INPUT
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "choice",
    ["arch=mlp", "data=mnist", "train=sgd", "target=cpu", "experiment=textbook", "debug=quick"],
)
def test_a_plus_before_a_group_changes_nothing(choice: str) -> None:
    plain = yaml_of(choice)
    assert plain != yaml_of() or choice == "target=cpu"
    assert yaml_of(f"+{choice}") == plain
    assert yaml_of(f"++{choice}") == plain


@pytest.mark.parametrize(
    "spellings",
    [
        ("opt=prune", "+opt=prune", "opt=[prune]", "+opt=[prune]", "++opt=[ prune ]"),
        ("opt=[distill,prune]", "+opt=[distill, prune]"),
        ("opt=none", "+opt=none", "opt=[none]", "opt=[]", "opt=null"),
        ("seed=3", "+seed=3", "++seed=3"),
        ("experiment=null", "debug=null"),
    ],
)
def test_spellings_of_the_same(spellings: tuple[str, ...]) -> None:
    assert len({yaml_of(spelling) for spelling in spellings}) == 1


def test_no_stage_is_an_empty_section() -> None:
    assert compose(["opt=none"]).opt == {}
    assert compose().opt == {}


@settings(max_examples=6, deadline=None)
@given(st.lists(st.sampled_from(STAGES), unique=True, min_size=1))
def test_stages_stay_in_the_order_they_were_given(stages: list[str]) -> None:
    assert list(compose([f"opt=[{','.join(stages)}]"]).opt) == stages


def test_an_experiment_sets_and_the_command_line_overrides(mine: Path) -> None:
    config = compose(["experiment=mine"], config_dir=mine)
    assert config.arch._target_ == "netopt_cli.arch.lenet5.build"
    assert (config.seed, list(config.opt)) == (7, ["prune", "distill"])
    assert config.opt.prune.sparsity == 0.9
    config = compose(["experiment=mine", "arch=mlp", "opt=[quantize,prune]", "seed=1"],
                     config_dir=mine)  # fmt: skip
    assert config.arch._target_ == "netopt_cli.arch.mlp.build"
    assert (config.seed, list(config.opt)) == (1, ["quantize", "prune"])


def test_an_experiment_that_sets_a_stage_which_is_overridden_away(mine: Path) -> None:
    message = refusal("experiment=mine", "opt=quantize", config_dir=mine)
    assert message.startswith("opt.prune is not a component")
    assert "'~opt.prune'" in message
    config = compose(["experiment=mine", "opt=quantize", "~opt.prune"], config_dir=mine)
    assert list(config.opt) == ["quantize"]


def test_a_teacher_by_the_name_of_its_arch() -> None:
    config = compose(["opt=[distill]", "opt.distill.teacher=resnet", "opt.distill.temperature=2"])
    assert config.opt.distill.teacher._target_ == "netopt_cli.arch.resnet.build"
    assert config.opt.distill.temperature == 2
    spelled = ["opt=[distill]", "+arch@opt.distill.teacher=resnet", "opt.distill.temperature=2"]
    assert compose(spelled) == config
    assert compose([line.replace("+", "") for line in spelled]) == config


def test_keys_of_the_teacher_that_was_chosen() -> None:
    config = compose(["opt.distill.teacher=cnn", "opt.distill.teacher.dense=7", "opt=distill"])
    assert config.opt.distill.teacher.dense == 7


@pytest.mark.parametrize("name", ["big teacher.keras", "/a/b-c.h5"])
def test_a_teacher_from_a_file_is_not_trained(name: str) -> None:
    teacher = compose(["opt=distill", f"opt.distill.teacher={name}"]).opt.distill
    assert teacher.teacher._target_ == "netopt_cli.arch.keras_model.build"
    assert teacher.teacher.path == name
    assert teacher.teacher_epochs == 0


def test_a_choice_inside_a_stage_of_the_user(mine: Path) -> None:
    own = ["opt=shrink", "opt.shrink.helper=vgg"]
    stage = compose(own, config_dir=mine, allow=["mypackage"]).opt.shrink
    assert stage.helper._target_ == "netopt_cli.arch.vgg.build"
    own[1] = "opt.shrink.helper=x.keras"
    stage = compose(own, config_dir=mine, allow=["mypackage"]).opt.shrink
    assert (stage.helper.path, stage.helper_epochs) == ("x.keras", 0)


@pytest.mark.parametrize("plus", ["", "+"])
def test_a_stage_is_repeated_under_a_name_of_its_own(plus: str) -> None:
    config = compose(
        ["opt=[prune,quantize]", f"{plus}opt@opt.prune2=prune", "opt.prune2.sparsity=0.95"]
    )
    assert list(config.opt) == ["prune", "quantize", "prune2"]
    assert (config.opt.prune.sparsity, config.opt.prune2.sparsity) == (0.8, 0.95)


def test_a_repeated_distillation_has_its_own_teacher() -> None:
    config = compose(
        ["opt=distill", "+opt@opt.again=distill", "opt.again.teacher=mlp"],
    )
    assert config.opt.distill.teacher._target_ == "netopt_cli.arch.vgg.build"
    assert config.opt.again.teacher._target_ == "netopt_cli.arch.mlp.build"


def test_a_new_key_in_an_open_section_of_the_user(mine: Path) -> None:
    overrides = ["arch=mine", "+arch.options.alpha=1", "+arch.depth=2"]
    config = compose(overrides, config_dir=mine, allow=["mypackage"])
    assert (config.arch.options.alpha, config.arch.depth) == (1, 2)


def test_files_of_the_user_go_first(tmp_path: Path) -> None:
    own = write_configs(tmp_path, arch__cnn="# Mine.\n_target_: netopt_cli.arch.mlp.build\n")
    assert compose(["arch=cnn"], config_dir=own).arch == {"_target_": "netopt_cli.arch.mlp.build"}


def test_a_search_path_of_hydra(mine: Path) -> None:
    config = compose([f"hydra.searchpath=[{mine}]", "experiment=mine"])
    assert config.seed == 7
    message = refusal("hydra.searchpath=[pkg://os]")
    assert message == "hydra.searchpath takes directories. Received: pkg://os"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["arch=cnnn"], "unknown arch 'cnnn'. Did you mean 'cnn'?"),
        (["experiment=textbok"], "unknown experiment 'textbok'. Did you mean 'textbook'?"),
        (["data=_base"], "unknown data '_base'. Choices: audio_folder, "),
        (["train=5"], "unknown train '5'."),
        (["opt=[prune,qantize]"], "unknown opt 'qantize'. Did you mean 'quantize'?"),
        (["opt=[3]"], "opt takes names of stages"),
        (["arch=[cnn,mlp]"], "arch takes one choice. Received: arch=[cnn,mlp]; to run one after"),
        (["opt=[prune,prune]"], "opt has 'prune' twice"),
        (["opt=prune", "+opt=quantize"], "opt is given twice. Received: opt=prune +opt=quantize"),
        (["arhc=cnn"], "unknown key 'arhc'. Did you mean 'arch'?"),
        (["train.epoch=3"], "unknown key 'train.epoch'. Did you mean 'train.epochs'?"),
        (["trian.epochs=3"], "unknown key 'trian.epochs'. Did you mean 'train.epochs'?"),
        (["epochs=3"], "unknown key 'epochs'. Did you mean 'train.epochs'?"),
        (["data.augment.shift_fractoin=1"], "Did you mean 'data.augment.shift_fraction'?"),
        (["opt=prune", "opt.sparsity=1"], "unknown key 'opt.sparsity'. Did you mean 'opt.prune.s"),
        (["opt=prune", "opt.prune.sparsty=1"], "Did you mean 'opt.prune.sparsity'?"),
        (
            ["opt=[prune]", "opt.quantize.scheme=x"],
            "opt.quantize.scheme: 'quantize' is not in opt=[prune]; add it: opt=[prune,quantize]",
        ),
        (["opt.quantize.scheme=x"], "add it: opt=[quantize]"),
        (["+foo=1"], "unknown key 'foo'. Choices: arch, cache, cache_max"),
        (["+train.foo=1"], "unknown key 'train.foo'. Choices: batch_size"),
        (["opt=prune", "+opt.foo=1"], "unknown key 'opt.foo'."),
        (
            ["opt=prune", "opt.prune=0.5"],
            "opt.prune is a section; set one of its keys: opt.prune.s",
        ),
        (["hydra.run.dri=x"], "unknown key 'hydra.run.dri'. Did you mean 'hydra.run.dir'?"),
        (["opt=[prune"], "cannot read the override opt=[prune: check its brackets"),
        (["cnn"], "'cnn' is not an override. Did you mean 'arch=cnn'?"),
        (["xyz"], "'xyz' is not an override. Write key=value, without spaces."),
        (
            ["opt=prune,quantize"],
            "add -m to run them all, or write opt=[prune,quantize] for stages",
        ),
        (["seed=0,1"], "seed=0,1 has several values: add -m to run them all"),
        (["data=npz"], "data.path must be given: data.path=VALUE"),
        (["seed=x"], "seed must be an integer. Received: seed=x"),
        (["seed=-1"], "seed must be >= 0. Received: seed=-1"),
        (["control=1"], "control must be true or false. Received: control=1"),
        (["arch._target_=os.system"], "arch._target_ may not be 'os.system'"),
        (["train.epochs=${nothing}"], "Interpolation key 'nothing' not found"),
        (["seed=${seed}"], "Recursive interpolation detected"),
        (["~train.epochz"], "Could not delete from config. 'train.epochz' does not exist."),
        (["opt=distill", "opt.distill.teacher=vg"], "unknown arch 'vg'. Did you mean 'vgg'?"),
        (
            ["opt=distill", "opt.distill.teacher.width=1"],
            "Did you mean 'opt.distill.teacher.widths",
        ),
    ],
)
def test_a_wrong_override_is_answered_in_one_line(overrides: list[str], message: str) -> None:
    assert message in refusal(*overrides)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("arch__bad", "_target_: [", "a config is not valid YAML"),
        ("arch__bad", "# No target.\nwidth: 3", "arch is not a component: it has no _target_"),
        ("arch__bad", "_target_: os.system", "arch._target_ may not be 'os.system'"),
        ("arch__bad", "_target_: netopt_cli.arch.cnn.build\nx: {_target_: os.system}", "arch.x._t"),
        ("arch__bad", "defaults: [nowhere]", "unknown arch 'nowhere'"),
    ],
)
def test_a_bad_file_of_the_user(name: str, text: str, message: str, tmp_path: Path) -> None:
    own = write_configs(tmp_path, **{name: text})
    assert message in refusal("arch=bad", config_dir=own)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("epochs: 3", "unknown key 'epochs'"),
        ("defaults: [{override /arch: cnnn}]", "unknown arch 'cnnn'. Did you mean 'cnn'?"),
        ("hydra: {callbacks: {evil: {_target_: os.system}}}", "hydra.callbacks may not name 'os.s"),
        (
            "hydra: {launcher: {_target_: mine.Launcher}}",
            "hydra.launcher may not name 'mine.Launch",
        ),
        (
            "hydra: {job_logging: {root: {handlers: [x]}, handlers: {x: {(): os.system}}}}",
            "hydra/job_logging is not supported",
        ),
        ("hydra: {job: {env_set: {PATH: /tmp}}}", "hydra.job.env_set is not supported"),
    ],
)
def test_an_experiment_of_a_stranger_starts_no_code(
    body: str, message: str, tmp_path: Path
) -> None:
    own = write_configs(tmp_path, experiment__bad=f"# @package _global_\n{body}")
    assert message in refusal("experiment=bad", config_dir=own)


def test_a_package_must_be_allowed(mine: Path) -> None:
    assert "with --allow PACKAGE" in refusal("arch=mine", config_dir=mine)
    assert compose(["arch=mine"], config_dir=mine, allow=["mypackage"]).arch.width == 4


def sweep(*overrides: str) -> list[list[str]]:
    with composer() as composing:
        return composing.cells(composing.normalise(overrides, multirun=True))


def test_a_sweep_is_normalised_and_multiplied_out_over_groups() -> None:
    cells = sweep("+arch=mlp,lenet5", "opt=none,[prune,quantize]", "seed=0,1,2")
    assert [cell[:2] for cell in cells] == [
        ["arch=mlp", "opt=[none]"],
        ["arch=mlp", "opt=[prune,quantize]"],
        ["arch=lenet5", "opt=[none]"],
        ["arch=lenet5", "opt=[prune,quantize]"],
    ]
    assert {cell[2] for cell in cells} == {"seed=0"}


def test_a_sweep_over_teachers_and_by_pattern() -> None:
    cells = sweep("opt=distill", "opt.distill.teacher=vgg,cnn")
    assert [cell[1][-3:] for cell in cells] == ["vgg", "cnn"]
    assert ["arch=mlp"] in sweep("arch=glob(m*)")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["arch=mlp,cnnn"], "unknown arch 'cnnn'. Did you mean 'cnn'?"),
        (["opt=none,[prune,qantize]"], "unknown opt 'qantize'"),
        (["opt=none,prune", "opt.prune.sparsity=0.5,0.8"], "'prune' is not in opt=[none]"),
        (["opt=distill", "opt.distill.teacher=vgg,a.keras"], "cannot sweep over names and files"),
        (["data=digits,npz"], "data.path must be given"),
        (["experiment=null,textbook"], "unknown experiment 'None'"),
    ],
)
def test_every_choice_of_a_sweep_is_checked(overrides: list[str], message: str) -> None:
    assert message in refusal(*overrides, multirun=True)


def test_a_missing_folder_and_primary_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config-dir must be a directory"):
        compose(config_dir=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="Cannot find primary config 'other'"):
        compose(config_name="other")


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(alphabet="ab=+[],{}:'\"$~@. ", min_size=1, max_size=12))
def test_any_line_is_composed_or_refused_with_a_message(line: str) -> None:
    try:
        compose([line])
    except ConfigError as error:
        assert str(error)
