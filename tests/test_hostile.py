"""What a stranger may send: configs, networks, data, directories. Nothing runs, nothing leaves.

Each test makes one hostile input, hands it to the command line, and looks for the canary that it
would have left outside.
"""

import gzip
import io
import json
import os
import stat
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from user_configs import write_configs

from netopt_cli import app
from netopt_cli.errors import EXIT_OK, EXIT_WRONG_INPUT

SECONDS = 30
"""More than any refusal takes, on a busy machine too; far less than what they refuse."""


@pytest.fixture
def small_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests need not write the hundreds of megabytes that a bomb begins with."""
    monkeypatch.setattr("netopt_cli.archives.HARMLESS_BYTES", 1 << 20)


class Fortress:
    """A current directory, and everything around it, which must stay as it was."""

    def __init__(self, work: Path, outside: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.work, self.outside, self._capfd = work, outside, capfd
        self.canary = outside / "canary"

    def refuses(self, *words: str) -> str:
        """Runs a command line, which must be refused in a line or two; returns the message."""
        before = _tree(self.outside), _tree(self.work)
        self._capfd.readouterr()  # what making it has said
        started = time.process_time()
        code = app.main(words)
        said = self._capfd.readouterr().err
        assert time.process_time() - started < SECONDS
        assert (_tree(self.outside), _tree(self.work)) == before
        assert code == EXIT_WRONG_INPUT, said
        assert "Traceback" not in said and "internal error" not in said
        assert said.startswith("error") and len(said) < 2_000
        return said

    def configs(self, **files: str) -> str:
        """Writes configs (see `write_configs`) and returns their folder, as `--config-dir` takes
        it."""
        return str(write_configs(self.work / "conf", **files))


def _tree(folder: Path) -> dict[str, bytes]:
    """What is in a folder; `runs` itself stays behind a run that was refused, empty."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path != folder / "runs"
    }


@pytest.fixture
def fortress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Fortress:
    work, outside = tmp_path / "work", tmp_path / "outside"
    work.mkdir()
    outside.mkdir()
    monkeypatch.chdir(work)
    return Fortress(work, outside, capfd)


# Configs


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.exec",
        "subprocess.run",
        "keras.utils.get_file",
        "keras.saving.load_model",
        "netopt_cli.arch.keras_model._load",
        "netopt_cli.app.main",
    ],
)
@pytest.mark.parametrize("place", ["{}", "options: {{inner: [{}]}}"])
def test_a_config_names_no_code(target: str, place: str, fortress: Fortress) -> None:
    evil = f"{{_target_: {target}, command: touch {fortress.canary}}}"
    body = place.format(evil)
    if place != "{}":
        body = f"_target_: netopt_cli.arch.mlp.build\n{body}"
    own = fortress.configs(arch__evil=body)
    said = fortress.refuses("train", "--config-dir", own, "arch=evil")
    assert "_target_" in said and target.rpartition(".")[2] in said


@pytest.mark.parametrize(
    "target",
    [
        "hydra._internal.core_plugins.bash_completion.os.system",  # a module inside a plug-in's
        "hydra._internal.core_plugins.basic_launcher.configure_log",
        "hydra.experimental.callbacks.pickle.loads",
        "hydra.experimental.callbacks.Path",
        "hydra_plugins.anything.os.system",
        "mine.os.system",
        "mine.system",
    ],
)
@pytest.mark.parametrize("place", ["callbacks: {{evil: {}}}", "launcher: {}", "sweeper: {}"])
def test_hydra_starts_no_code(
    target: str, place: str, fortress: Fortress, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = fortress.work / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("import os\nfrom os import system\n")
    monkeypatch.syspath_prepend(str(fortress.work))
    # Python itself may keep the compiled module of an allowed package beside it.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    evil = f"{{_target_: {target}, command: touch {fortress.canary}}}"
    own = fortress.configs(
        experiment__evil=f"# @package _global_\nhydra: {{{place.format(evil)}}}\n"
    )
    words = ["--config-dir", own, "--allow", "mine", "experiment=evil"]
    key = f"hydra.{place.partition(':')[0]}"
    assert key in fortress.refuses("train", *words)
    assert key in fortress.refuses("train", "-m", *words, "seed=0,1")


LOGGING = "{{version: 1, root: {}, handlers: {{x: {{(): os.system, command: touch {}}}}}}}"


@pytest.mark.parametrize("root", ["{handlers: [x]}", "null", "'???'", "'${seed}'", "[]"])
def test_logging_starts_no_code(root: str, fortress: Fortress) -> None:
    logging = LOGGING.format(root, fortress.canary)
    own = fortress.configs(
        experiment__evil=f"# @package _global_\nhydra: {{job_logging: {logging}}}\n"
    )
    words = ["train", "--config-dir", own, "experiment=evil"]
    assert "hydra/job_logging is not supported" in fortress.refuses(*words)
    assert "hydra/job_logging is not supported" in fortress.refuses(*words, "-m", "seed=0,1")


@pytest.mark.parametrize(
    "key", ["hydra.job_logging", "+hydra.callbacks.x", "hydra.output_subdir", "hydra/job_logging"]
)
def test_a_sweep_brings_no_settings_of_hydra(key: str, fortress: Fortress) -> None:
    own = fortress.configs(
        experiment__evil=f'# @package _global_\nhydra: {{sweeper: {{params: {{"{key}": "a,b"}}}}}}'
    )
    words = ["train", "-m", "--config-dir", own, "experiment=evil"]
    assert "a sweep cannot vary Hydra's own settings" in fortress.refuses(*words)
    fortress.refuses("train", "-m", f"{key}=a,b")


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ("run: {{dir: {outside}/run}}", "hydra.run.dir"),
        ("run: {{dir: ../outside/run}}", "hydra.run.dir"),
        ("run: {{dir: 'runs/../../outside/run'}}", "hydra.run.dir"),
        ("output_subdir: {outside}/sub", "hydra.output_subdir"),
        ("output_subdir: ..", "hydra.output_subdir"),
        ("output_subdir: '${{seed}}'", "hydra.output_subdir"),
        ("job: {{env_set: {{PATH: /tmp}}}}", "hydra.job.env_set"),
    ],
)
def test_a_config_writes_below_the_current_directory(
    body: str, key: str, fortress: Fortress
) -> None:
    body = body.format(outside=fortress.outside)
    own = fortress.configs(experiment__evil=f"# @package _global_\nhydra: {{{body}}}\n")
    assert key in fortress.refuses("train", "--config-dir", own, "experiment=evil")


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ("sweep: {{dir: {outside}/sweep}}", "hydra.sweep.dir"),
        ("sweep: {{subdir: ../../../outside/cell}}", "hydra.sweep.subdir"),
        ("sweep: {{subdir: '{outside}/cell'}}", "hydra.sweep.subdir"),
        ("sweep: {{subdir: '${{data.name}}/x'}}", "hydra.sweep.subdir"),
    ],
)
def test_a_sweep_writes_below_the_current_directory(
    body: str, key: str, fortress: Fortress
) -> None:
    body = body.format(outside=fortress.outside)
    own = fortress.configs(experiment__evil=f"# @package _global_\nhydra: {{{body}}}\n")
    words = ["train", "-m", "--config-dir", own, "experiment=evil", "seed=0,1"]
    assert key in fortress.refuses(*words)


@pytest.mark.parametrize("name", ["../../outside/x", "a/b", "..", "", "a b", "x" * 100, "\u202ex"])
def test_a_stage_has_a_plain_name(name: str, fortress: Fortress) -> None:
    stage = json.dumps({"opt": {name: {"_target_": "netopt_cli.opt.fold.Fold"}}})
    own = fortress.configs(experiment__evil=f"# @package _global_\n{stage}\n")
    said = fortress.refuses("train", "--config-dir", own, "experiment=evil")
    assert "the name of a stage must be" in said and "\u202e" not in said


@pytest.mark.parametrize("scheme", ["pkg", "structured"])
def test_a_search_path_imports_nothing(
    scheme: str, fortress: Fortress, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fortress.work / "evil.py").write_text(
        f"import pathlib\npathlib.Path({str(fortress.canary)!r}).touch()\n"
    )
    monkeypatch.syspath_prepend(str(fortress.work))
    own = Path(fortress.configs())
    (own / "mine.yaml").write_text(f"defaults: [run]\nhydra: {{searchpath: [{scheme}://evil]}}\n")
    words = ["train", "--config-dir", str(own), "--config-name", "mine"]
    assert "hydra.searchpath takes directories" in fortress.refuses(*words)
    assert "hydra.searchpath takes" in fortress.refuses("train", f"hydra.searchpath=[{scheme}://e]")


def test_plug_ins_of_the_current_directory_are_not_imported(fortress: Fortress) -> None:
    plugins = fortress.work / "hydra_plugins"
    plugins.mkdir()
    (plugins / "evil.py").write_text(f"open({str(fortress.canary)!r}, 'w')\n")
    fortress.refuses("train", "--allow", "mine", "arch=nothing")


def test_a_config_is_in_its_folder(fortress: Fortress) -> None:
    (fortress.outside / "secret.yaml").write_text("_target_: netopt_cli.arch.mlp.build\n")
    own = Path(fortress.configs(arch__evil="defaults: [../../../outside/secret]\n"))
    assert "config" in fortress.refuses("train", "--config-dir", str(own), "arch=evil")
    (own / "arch" / "link.yaml").symlink_to(fortress.outside / "secret.yaml")
    assert "must be in" in fortress.refuses("train", "--config-dir", str(own), "arch=link")


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "GITHUB_TOKEN"])
def test_a_config_reads_no_secrets(
    name: str, fortress: Fortress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "hunter2")
    own = fortress.configs(
        arch__evil=f"_target_: netopt_cli.arch.mlp.build\nnorm: ${{oc.env:{name}}}\n",
        arch__decoded="_target_: netopt_cli.arch.mlp.build\n"
        f"norm: \"${{oc.decode:'$\\{{oc.env:{name}\\}}'}}\"\n",
    )
    for arch in ("evil", "decoded"):
        assert "hunter2" not in fortress.refuses("train", "--config-dir", own, f"arch={arch}")
    assert "looks like a secret" in fortress.refuses("train", "--config-dir", own, "arch=evil")


ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 100))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALIASES, "with its aliases written out"),
        (MERGES, "with its aliases written out"),
        (CHAIN, "levels deep"),
        ("a: &a [*a]\n", "contains itself"),
        ("a: " + "[" * 5_000 + "]" * 5_000, "levels deep"),
        ("a: " + "{a: " * 5_000 + "}" * 5_000, "levels deep"),
        ("k" * 100_000 + ": 1\n", "must have keys and values of at most 10,000 characters"),
        ("a: " + "v" * 100_000, "must have keys and values of at most 10,000 characters"),
        ("a: [" + "1," * 100_000 + "1]", "must be at most 10,000 values"),
        ("# x\n" * 100_000, "must be a config of at most"),
        ("a: " + "9" * 9_000, "has a value that cannot be read"),
        ("a: !!python/object/apply:os.system ['touch canary']", "not valid YAML"),
        ("a: *nowhere", "not valid YAML"),
    ],
)
def test_a_file_that_explodes_is_not_loaded(text: str, message: str, fortress: Fortress) -> None:
    own = fortress.configs()
    (Path(own) / "arch" / "evil.yaml").write_text(text)
    assert message in fortress.refuses("train", "--config-dir", own, "arch=evil")
    assert app.main(["__complete", f"netopt train --config-dir {own} arch=evil arch."]) in (0, 2)
    assert app.main(["list", "--config-dir", own]) == EXIT_OK


@pytest.mark.parametrize(
    "values",
    [
        ["x" * 5_000, *["${arch.a%d}" * 100] * 8],
        [[1] * 50, *[["${arch.a%d}"] * 30] * 8],
        ["x", *["${oc.select:arch.a%d}${oc.select:arch.a%d}" * 20] * 8],
    ],
)
def test_interpolations_that_multiply_end(
    values: list, fortress: Fortress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netopt_cli.config_errors._COMPOSING_SECONDS", 0.5)
    lines = [
        f"a{n}: {json.dumps(value).replace('%d', str(n - 1))}" for n, value in enumerate(values)
    ]
    own = fortress.configs(arch__evil="\n".join(["_target_: netopt_cli.arch.mlp.build", *lines]))
    assert "takes too long to read" in fortress.refuses("train", "--config-dir", own, "arch=evil")


@pytest.mark.parametrize(
    "line",
    [
        "k" * 100_000 + "=1",
        "seed=" + "9" * 100_000,
        "seed=" + "9" * 10_000,
        "seed=1e400",
        "seed=" + "[" * 3_000 + "]" * 3_000,
        "data.path=" + "${a:" * 2_000 + "}" * 2_000,
        "arch." + "a." * 5_000 + "a=1",
        "seed=${seed}",
        "arch.dropout=${arch.a} arch.a=${arch.dropout}",
        "seed=\x00",
        "\u202eseed=1",
        "hydra.run.dir=\x00",
        "hydra.run.dir=" + "x" * 5_000,
    ],
)
def test_a_line_that_is_too_much_is_refused(line: str, fortress: Fortress) -> None:
    said = fortress.refuses("train", *line.split(" "))
    assert "\x00" not in said and "\u202e" not in said


def test_messages_do_not_steer_the_terminal(fortress: Fortress) -> None:
    own = fortress.configs(arch__evil='_target_: "\\e]0;owned\\a\\e[2J"\n')
    said = fortress.refuses("train", "--config-dir", own, "arch=evil")
    assert "\x1b" not in said and "\\x1b]0;owned" in said


# Directories


@pytest.mark.parametrize(
    "link", ["0-baseline", "tensorboard/baseline", "wandb/cache", "run.log", "record.json"]
)
def test_a_link_leads_no_run_out(link: str, fortress: Fortress) -> None:
    place = fortress.work / "theirs" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(fortress.outside / "canary")
    said = fortress.refuses("train", "hydra.run.dir=theirs")
    assert "has a link that leads out of it" in said and link in said


def test_a_directory_that_is_a_link_is_the_users_own(fortress: Fortress) -> None:
    from netopt_cli.run_dir import use_run_dir

    (fortress.work / "runs").symlink_to(fortress.outside)
    use_run_dir(fortress.work / "runs" / "mine")
    assert (fortress.outside / "mine").is_dir()


# Networks


def keras_archive(path: Path, *, config: object = None, weights: bytes | None = None) -> Path:
    """A `.keras` file of a small network, or with parts that are given."""
    import keras

    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if config is not None:
        members["config.json"] = (
            config if isinstance(config, bytes) else json.dumps(config).encode()
        )
    if weights is not None:
        members["model.weights.h5"] = weights
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def sequential(*layers: dict) -> dict:
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "evil", "layers": list(layers)},
        "registered_name": None,
    }


def layer(class_name: str, module: str = "keras.layers", /, **config: object) -> dict:
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None}


INPUT = layer("InputLayer", batch_shape=[None, 8, 8, 1], dtype="float32", name="input")


def h5(fill: Callable) -> bytes:
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        fill(file)
    return content.getvalue()


def test_a_lambda_is_refused(fortress: Fortress) -> None:
    import keras

    def touch(x, canary=str(fortress.canary)):
        __import__("pathlib").Path(canary).touch()
        return x

    layers = [keras.layers.Flatten(), keras.layers.Lambda(touch), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    fortress.canary.unlink()  # building it has called it
    for name in ("evil.keras", "evil.h5"):
        model.save(fortress.work / name)
        words = ["train", "arch=keras_model", f"arch.path={name}"]
        assert "has a Lambda layer" in fortress.refuses(*words)
        words = ["train", "opt=distill", f"opt.distill.teacher={name}"]
        assert "has a Lambda layer" in fortress.refuses(*words)


@pytest.mark.parametrize(
    "evil",
    [
        layer("TFSMLayer", filepath="/tmp"),
        layer("Bidirectional", layer=layer("Lambda", function={"class_name": "__lambda__"})),
        layer("system", "os"),
        layer("get_file", "keras.utils", fname="x", origin="http://localhost:1/x"),
        layer("enable_unsafe_deserialization", "keras.config"),
        layer("canary_module_nobody_has", "canary_package"),
    ],
)
def test_a_network_brings_no_code(evil: dict, fortress: Fortress) -> None:
    keras_archive(fortress.work / "evil.keras", config=sequential(INPUT, evil))
    (fortress.work / "canary_package.py").write_text(f"open({str(fortress.canary)!r}, 'w')\n")
    fortress.refuses("train", "arch=keras_model", "arch.path=evil.keras")


@pytest.mark.parametrize(
    "config", [b"{", b"[" * 100_000, b'"text"', b"null", b"\xff\xfe", b'{"class_name": 3}']
)
def test_a_description_that_is_none(config: bytes, fortress: Fortress) -> None:
    keras_archive(fortress.work / "evil.keras", config=config)
    fortress.refuses("train", "arch=keras_model", "arch.path=evil.keras")


@pytest.mark.parametrize(
    "name", ["../../outside/canary", "/tmp/canary", "a\\..\\..\\canary", "C:/x"]
)
@pytest.mark.parametrize("suffix", [".keras", ".npz"])
def test_zip_slip(name: str, suffix: str, fortress: Fortress) -> None:
    path = fortress.work / f"evil{suffix}"
    if suffix == ".keras":
        keras_archive(path)
    else:
        npz(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "canary")
    assert "would be written outside" in fortress.refuses("train", *using(path))


def test_a_link_in_an_archive(fortress: Fortress) -> None:
    path = keras_archive(fortress.work / "evil.keras")
    link = zipfile.ZipInfo("assets")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, str(fortress.outside))
        archive.writestr("assets/canary", "canary")
    assert "would be written outside" in fortress.refuses("train", *using(path))


@pytest.mark.parametrize("member", ["model.weights.h5", "config.json", "assets/zeros"])
@pytest.mark.usefixtures("small_bombs")
def test_a_zip_bomb_in_a_network(member: str, fortress: Fortress) -> None:
    path = keras_archive(fortress.work / "evil.keras")
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if name != member}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in kept.items():
            archive.writestr(name, content)
        write_zeros(archive, member, 8 << 20)
    said = fortress.refuses("train", *using(path))
    assert "may grow 200 times when it is unpacked" in said


def test_members_that_overlap(fortress: Fortress) -> None:
    path = fortress.work / "evil.npz"
    npz(path)
    content = path.read_bytes()
    directory = content.index(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    entry = content[directory : content.index(b"PK\x01\x02", directory + 4)]
    # The same member many times over, under other names.
    entries = b"".join(
        entry[:46]
        + f"{n:0{struct.unpack_from('<H', entry, 28)[0]}}".encode()
        + entry[46 + struct.unpack_from("<H", entry, 28)[0] :]
        for n in range(500)
    )
    tail = bytearray(content[end:])
    struct.pack_into("<HHII", tail, 8, 500, 500, len(entries), directory)
    path.write_bytes(content[:directory] + entries + bytes(tail))
    fortress.refuses("train", *using(path))


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda file: file.__setitem__("x", external("/etc/hostname")), "are a link"),
        (lambda file: file.create_dataset("x", (4,), "u1", external=[("/etc/hostname", 0, 4)]),
         "in another file"),
        (lambda file: file.create_dataset("x", (1 << 40,), "f4", chunks=(1 << 20,), compression=1),
         "may grow 200 times"),
    ],
)  # fmt: skip
def test_weights_that_are_elsewhere_or_nowhere(
    fill: Callable, message: str, fortress: Fortress
) -> None:
    path = keras_archive(fortress.work / "evil.keras", weights=h5(fill))
    assert message in fortress.refuses("train", *using(path))


def external(path: str) -> object:
    import h5py

    return h5py.ExternalLink(path, "/x")


def test_a_saved_model_is_no_teacher(fortress: Fortress) -> None:
    folder = fortress.work / "theirs"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    said = fortress.refuses("train", "opt=distill", "opt.distill.teacher=theirs")
    assert "without a stage's model.keras" in said


# Data


def npz(path: Path, **changes: object) -> Path:
    arrays = {
        "x_train": np.zeros((60, 4, 4), np.uint8),
        "y_train": np.arange(60) % 3,
        "x_test": np.zeros((30, 4, 4), np.uint8),
        "y_test": np.arange(30) % 3,
    }
    np.savez_compressed(path, **(arrays | changes))
    return path


def using(path: Path) -> list[str]:
    if path.suffix == ".npz":
        return ["data=npz", f"data.path={path.name}"]
    return ["arch=keras_model", f"arch.path={path.name}"]


def write_zeros(archive: zipfile.ZipFile, name: str, count: int) -> None:
    """Writes zeros, a megabyte at a time: the test itself must not need the memory."""
    with archive.open(name, "w") as member:
        for _ in range(count >> 20):
            member.write(bytes(1 << 20))


class Pickled:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.canary}",)


def test_a_pickled_array(fortress: Fortress) -> None:
    evil = np.array([Pickled(fortress.canary)] * 60, dtype=object)
    npz(fortress.work / "evil.npz", x_train=evil)
    said = fortress.refuses("train", "data=npz", "data.path=evil.npz")
    assert "holds pickled objects, which can run code" in said


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 62, 1 << 62), (60, 4, 5)])
def test_an_array_that_is_not_there(shape: tuple[int, ...], fortress: Fortress) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    path = npz(fortress.work / "evil.npz")
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if name != "x_train.npy"}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in kept.items():
            archive.writestr(name, content)
        archive.writestr("x_train.npy", header.getvalue() + bytes(960))
    assert "'x_train' in evil.npz is damaged" in fortress.refuses("train", *using(path))


@pytest.mark.usefixtures("small_bombs")
def test_a_zip_bomb_of_data(fortress: Fortress) -> None:
    path = npz(fortress.work / "evil.npz")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        write_zeros(archive, "x_validation.npy", 8 << 20)
    assert "may grow 200 times" in fortress.refuses("train", *using(path))


@pytest.mark.usefixtures("small_bombs")
def test_a_gzip_bomb(fortress: Fortress) -> None:
    folder = fortress.work / "theirs"
    folder.mkdir()
    for split in ("train", "t10k"):
        with gzip.open(folder / f"{split}-images-idx3-ubyte.gz", "wb") as file:
            for _ in range(8):
                file.write(bytes(1 << 20))
    said = fortress.refuses("train", "data=mnist", "data.path=theirs")
    assert "may grow 200 times" in said


def png(width: int, height: int) -> bytes:
    header = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + bytes(40)


def jpg(width: int, height: int) -> bytes:
    comment = b"\xff\xfe" + struct.pack(">H", 1_000) + bytes(998)
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + comment + frame


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", png(50_000, 50_000)),
        ("a.jpg", jpg(65_000, 65_000)),
        ("a.gif", b"GIF89a" + struct.pack("<HH", 65_000, 65_000) + bytes(30)),
        ("a.bmp", b"BM" + bytes(16) + struct.pack("<iiHH", 100_000, -100_000, 1, 24) + bytes(30)),
    ],
)
def test_an_image_that_is_too_large(name: str, content: bytes, fortress: Fortress) -> None:
    for folder in ("a", "b"):
        (fortress.work / "theirs" / folder).mkdir(parents=True)
        (fortress.work / "theirs" / folder / name).write_bytes(content)
    said = fortress.refuses("train", "data=image_folder", "data.path=theirs")
    assert "An image must have at most 134,217,728 pixels" in said and name in said


# Packed files


@pytest.mark.parametrize("method", [0, 1])
def test_a_packed_file_cannot_ask_for_more_than_it_has(method: int, fortress: Fortress) -> None:
    body = bytes(range(1, 60))
    header = struct.pack("<2sBIB", b"nP", 2, 0, method) + b"\xff\xff\xff\xff\x07"
    (fortress.work / "evil.packed").write_bytes(header + body)
    assert "damaged" in fortress.refuses("unpack", "evil.packed")
