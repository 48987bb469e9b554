"""Generated command lines and YAML files, which must end in words: no traceback, no hang.

    python -m benchmarks.fuzz_command_line [--examples 10000] [--seed 0] [--first 0]

Each example is made of (seed, its number) and can be run again alone: `--first N --examples 1`.
It goes through `app.main` in this process, as far as it can go without TensorFlow: lines that would
train name a directory that is taken, which is found out last, and a forecast foresees nothing. What
is looked for:

- an exit code other than 0, 1 and 2, or 1 for what is wrong input;
- a traceback, an internal error, a message that steers the terminal;
- more than 10 seconds of the processor;
- anything run, or written into the current directory or beside it.

Exit code 1 and every finding on stdout when there are any.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import netopt_cli
from netopt_cli import app, catalog
from netopt_cli.terminal import quiet_tensorflow

Random = random.Random
SECONDS = 10
"""Of the processor for an example; on a busy machine the clock tells nothing."""
_HANGS = 600
"""Seconds on the clock after which the process is ended, with the place where it hangs."""
TAKEN, CONFIGS, PACKED, CANARY = "taken", "conf", "file.packed", "canary"

_GROUPS = ["arch", "opt", "data", "train", "target", "robustness", "tracking", "experiment",
           "debug"]  # fmt: skip
_CHOICES = [
    "cnn", "mlp", "resnet", "none", "prune", "quantize", "distill", "qat", "digits", "npz",
    "mnist", "default", "sgd", "cpu", "gpu", "smoke", "standard", "mlflow", "wandb", "mine", "run",
    "nowhere",
    "../x", "/etc/passwd",
]  # fmt: skip
_KEYS = [
    "seed", "seeds", "control", "export", "cache", "cache_max_megabytes", "checkpoint_seconds",
    "deterministic", "tracking", "tracking.mlflow.models", "arch.widths", "arch.dropout",
    "opt.prune.sparsity", "data.path", "opt.distill.teacher", "opt.distill.teachers",
    "train.epochs", "train", "train.schedule", "opt", "hydra", "arch", "hydra.run.dir",
    "hydra.job_logging", "hydra.callbacks.x", "hydra.launcher", "hydra.searchpath",
    "hydra.verbose", "hydra.output_subdir", "hydra.sweep.subdir", "hydra.sweeper.params",
    "hydra.mode", "hydra.job.chdir", "hydra/launcher", "hydra/job_logging",
    "arch@opt.distill.teacher", "opt@opt.prune2", "_target_", "arch._target_", "defaults",
    "data.augment.flip_horizontal", "a", "a.b.c", "arch[0]", "opt.prune[x]",
]  # fmt: skip
_SCALARS = [
    "0", "1", "-1", "0.5", "1e3", "1e400", "nan", "inf", "-inf", "true", "false", "null", "~",
    "???", "yes", "''", '""', "x", "07", "0x10", "1_000", "2026-11-24", "1:30", "_self_", "'['",
    "${seed}", "${arch}", "${nothing}", "${seed", "${}", "${.}", "${..a}", "${oc.env:HOME}",
    "${oc.env:TOKEN}", "${oc.decode:x}", "${oc.select:seed}", "${hydra:run.dir}", "${now:%Y}",
    "${stages:${opt}}", "${folder:../x}", "${a.${b}}", "${oc.create:{a:1}}", "$", "$$", "\\${x}",
    "interval(0,1)", "choice(1,2)", "range(3)", "glob(*)", "sort(1,2)", "shuffle(a,b)",
    "tag(x,1)", "int(x)", "float(1)", "str([1])", "extend_list(1)", "9" * 5_000,
]  # fmt: skip
_TARGETS = [
    "os.system", "subprocess.run", "netopt_cli.arch.mlp.build", "netopt_cli.opt.prune.Prune",
    "keras.layers.Dense", "hydra._internal.core_plugins.bash_completion.os.system",
    "builtins.eval", "a.b.", "..a", "netopt_cli",
]  # fmt: skip
_PIECES = [
    *"=,.[]{}()+~@/:$\\'\"#&*!|>%? \t\n\r-_ä漢\u202e\x1b\x07\udcff\u00a0\ufeff",
    "a", "opt", "arch", "--", "-m", "${", "<<", "*a", "&a ", "!!python/object/apply:os.system ",
]  # fmt: skip
_VALID = {
    group: [*catalog.choices(group, [catalog.shipped_configs()])]
    for group in catalog.groups([catalog.shipped_configs()])
}
_SETTINGS = [
    "seed=3", "seeds=2", "seeds=[0,3]", "export=[litert,onnx]", "control=false", "train.epochs=2",
    "opt.prune.sparsity=0.9", "opt.distill.teacher=vgg", "opt.distill.teacher=[vgg,cnn]",
    "+opt@opt.prune2=prune", "arch.dropout=${train.epochs}", "data.path=x.npz", "train={epochs: 3}",
    "tracking=mlflow", "tracking=[mlflow,wandb]", "tracking.wandb.models=true", "cache=false",
    "hydra.verbose=true", "hydra.job.chdir=true", "hydra.searchpath=[conf]",
]  # fmt: skip


@dataclass
class Example:
    """Attributes:
    words: The command line.
    files: Their content, by path below the current directory.
    """

    words: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)


def generate(r: Random) -> Example:
    """Makes an example."""
    example = Example()
    makers: list[Callable[[Random, Example], None]] = [
        _composed, _composed, _composed, _composed, _checked, _checked, _checked, _swept, _swept,
        _foreseen, _catalog, _completed, _stored, _stored, _resumed, _unpacked, _launched, _asked,
        _garbled,
    ]  # fmt: skip
    r.choice(makers)(r, example)
    if r.random() < 0.1:
        word = r.choice(["-h", "--help", "--version", "--", "-", "", _garbage(r)])
        example.words.insert(r.randrange(len(example.words) + 1), word)
    return example


# Command lines


def _composed(r: Random, example: Example) -> None:
    example.words += ["train", *_overrides(r), *_config_options(r, example)]
    what = [
        ["--cfg", r.choice(["job", "hydra", "all", "x"])],
        ["--cfg", "job", "--resolve"],
        ["--cfg", "job", "--package", r.choice([*_KEYS, "", "_global_", _garbage(r)])],
        ["--info", r.choice(["all", "config", "defaults", "defaults-tree", "searchpath"])],
    ]
    example.words += r.choice(what)


def _checked(r: Random, example: Example) -> None:
    command = r.choice(["train", "train", "sensitivity"])
    example.words += [command, *_overrides(r), *_config_options(r, example)]
    example.words += r.choice([[], [], ["--no-cache"], ["--json"], ["-q"], ["--json", "--quiet"]])
    example.words.append(f"hydra.run.dir={TAKEN}")


def _foreseen(r: Random, example: Example) -> None:
    example.words += ["train", "--dry-run", *_overrides(r), *_config_options(r, example)]
    more = [[], [], ["--json"], ["-m", f"{r.choice(_KEYS)}={_value(r)},{_value(r)}"],
            ["--cfg", "job"], ["--info"], ["-q", "--no-cache"]]  # fmt: skip
    example.words += r.choice(more)


def _swept(r: Random, example: Example) -> None:
    example.words += ["train", "-m", *_overrides(r), *_config_options(r, example)]
    example.words += [f"{r.choice(_KEYS)}={_value(r)},{_value(r)}", f"hydra.sweep.dir={TAKEN}"]


def _catalog(r: Random, example: Example) -> None:
    group, name = r.choice([*_GROUPS, _garbage(r)]), r.choice([*_CHOICES, _garbage(r)])
    words = [["list"], ["list", group], ["show", group], ["show", f"{group}{r.choice('/=')}{name}"]]
    example.words += [*r.choice(words), *_config_options(r, example)]


def _completed(r: Random, example: Example) -> None:
    options = _config_options(r, example)
    line = " ".join(["netopt", r.choice(["train", "list", "show", "x"]), *options, *_overrides(r)])
    cut = line[: r.randrange(len(line) + 1)] if r.random() < 0.3 else line
    example.words += r.choice([["__complete", cut], ["__complete", cut], ["completion", "bash"]])


def _stored(r: Random, example: Example) -> None:
    for name in ("a", "b"):
        example.files[f"stored/{name}/record.json"] = _json(r)
    example.files["baseline.json"] = _json(r)
    example.words += r.choice(
        [
            ["runs", "stored", "--format", r.choice(["table", "csv", "json"])],
            ["runs", "stored", "--where", _garbage(r), "--sort", r.choice(["accuracy", "", "x"])],
            ["runs", r.choice(["stored", "nowhere", _garbage(r)]), "--since", r.choice(_SCALARS)],
            ["compare", "stored/a", "stored/*", "--cost", r.choice(["params", "x"])],
            ["compare", "stored", "--format", r.choice(["markdown", "csv", "json"])],
            ["check", "stored/a", "--baseline", "baseline.json"],
            ["check", "stored/a", "--baseline", "baseline.json", "--update"],
            ["check", "stored", "--baseline", "stored/new.json", "--update"],
            ["check", "stored/b", "--baseline", "baseline.json", "--junit", "stored/x.xml",
             "--summary", "stored/x.md"],
            ["report", r.choice(["stored", "stored/a", "nowhere"])],
            ["report", "stored/b", "--format", r.choice(["html", "svg", "x"])],
        ]
    )  # fmt: skip


def _resumed(r: Random, example: Example) -> None:
    """Nothing that goes on: no config is whole."""
    example.files["stored/a/record.json"] = _json(r)
    if r.random() < 0.8:
        example.files["stored/a/config.yaml"] = _yaml(r).encode("utf-8", "replace")
    options = r.choice([[], ["-q"], ["--json"], ["--allow", "os"], ["--quit"]])
    example.words += ["resume", r.choice(["stored/a", "stored/a", "stored", "nowhere"]), *options]


def _asked(r: Random, example: Example) -> None:
    """Not `doctor` alone, which would tell that there is no TensorFlow."""
    example.words += ["doctor", r.choice(["-h", "--json", "x", "", _garbage(r) or "y"])]


def _unpacked(r: Random, example: Example) -> None:
    header = b"nP" + bytes([r.choice([0, 1, 1, 1])]) + r.randbytes(4) + bytes([r.randrange(3)])
    length = r.choice([b"\x00", b"\x40", b"\xff\x7f", b"\xff\xff\xff\xff\x07", b"\xff" * 6])
    content = header + length + r.randbytes(r.randrange(200))
    example.files[PACKED] = (
        content[: r.randrange(len(content) + 1)] if r.random() < 0.2 else content
    )
    example.words += ["unpack", r.choice([PACKED, PACKED, PACKED, "nowhere", _garbage(r)])]


def _launched(r: Random, example: Example) -> None:
    """Nothing that starts workers."""
    number = r.choice(["0", "-1", "x", "", "1e3", _garbage(r)])
    words = [
        ["--workers", number, "train"],
        ["list"],
        ["--workers", "2"],
        ["train", "arch=nowhere"],
    ]
    example.words += ["launch", *r.choice(words)]


def _garbled(r: Random, example: Example) -> None:
    example.words += [_garbage(r) for _ in range(r.randrange(4))]


def _overrides(r: Random) -> list[str]:
    return [_override(r) for _ in range(r.choice([0, 1, 1, 2, 3, 5]))]


def _override(r: Random) -> str:
    kind = r.random()
    if kind < 0.35:
        group = r.choice(list(_VALID))
        names = r.sample(_VALID[group], k=min(len(_VALID[group]), r.choice([1, 2, 3])))
        return f"{group}=[{','.join(names)}]" if group == "opt" else f"{group}={names[0]}"
    if kind < 0.55:
        return r.choice(_SETTINGS)
    prefix = "" if r.random() < 0.8 else r.choice(["+", "++", "~"])
    if kind < 0.65:
        names = [r.choice(_CHOICES) for _ in range(r.choice([1, 1, 2, 3]))]
        value = names[0] if len(names) == 1 else f"[{','.join(names)}]"
        return f"{prefix}{r.choice(_GROUPS)}={value}"
    if kind < 0.95:
        return f"{prefix}{r.choice(_KEYS)}={_value(r)}"
    return _garbage(r)


def _value(r: Random, depth: int = 0) -> str:
    kind = r.random()
    if kind < 0.6 or depth > 3:
        return r.choice([*_SCALARS, *_CHOICES])
    if kind < 0.75:
        return f"[{','.join(_value(r, depth + 1) for _ in range(r.randrange(4)))}]"
    if kind < 0.9:
        items = (f"{r.choice(_KEYS)}: {_value(r, depth + 1)}" for _ in range(r.randrange(3)))
        return f"{{{','.join(items)}}}"
    if kind < 0.93:
        many = r.choice([10, 30, 2_000])
        return r.choice(["[", "{a:", "${", "("]) * many + r.choice(["", "]" * many])
    if kind < 0.95:
        return "x" * r.choice([1_000, 30_000, 100_000])
    return _garbage(r)


def _garbage(r: Random) -> str:
    return "".join(r.choice(_PIECES) for _ in range(r.choice([0, 1, 2, 5, 20])))


# Files


def _config_options(r: Random, example: Example) -> list[str]:
    if r.random() < 0.5:
        return []
    for place in ("arch/mine", "opt/mine", "experiment/mine", "mine", "data/sub/mine"):
        if r.random() < 0.7:
            example.files[f"{CONFIGS}/{place}.yaml"] = _yaml(r).encode("utf-8", "replace")
    if r.random() < 0.05:
        example.files[f"{CONFIGS}/arch/mine.yaml"] = r.randbytes(30)
    words = ["--config-dir", CONFIGS]
    words += r.choice(
        [[], [], ["--config-name", "mine"], ["--allow", r.choice(["mine", "os", ""])]]
    )
    group = r.choice(["arch", "opt", "experiment", "data"])
    return [*words, f"{group}={'sub/' if group == 'data' else ''}mine"]


def _yaml(r: Random) -> str:
    kind = r.random()
    if kind < 0.05:
        return _garbage(r)
    if kind < 0.1:
        levels = "\n".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}x]" for n in range(1, 12))
        return f"a0: &a0 [x]\n{levels}\n"
    header = r.choice(
        ["", "", "# @package _global_\n", "# @package opt.mine\n", "# @package a b\n"]
    )
    lines = [] if kind < 0.2 else [f"_target_: {r.choice(_TARGETS)}"]
    if r.random() < 0.4:
        entries = [
            "_self_", "mine", "/arch: cnn", "override /arch: mlp", "/arch@x: mlp", "optional x: y",
            "run", "../x", "/hydra/launcher: basic", "opt: [prune, mine]", "{}", "[a]", "1", "null",
            "/arch/mine", "arch: ${seed}", "override hydra/job_logging: default",
        ]  # fmt: skip
        chosen = [r.choice(entries) for _ in range(r.randrange(4))]
        lines.append("defaults:" + "".join(f"\n  - {entry}" for entry in chosen))
    for _ in range(r.randrange(5)):
        lines.append(f"{r.choice([*_KEYS, _garbage(r)])}: {_node(r)}")
    return header + "\n".join(lines) + r.choice(["", "\n"])


def _node(r: Random, depth: int = 0) -> str:
    kind = r.random()
    if kind < 0.5 or depth > 4:
        return r.choice([*_SCALARS, *_CHOICES, *_TARGETS, "&a 1", "*a", "!!int x", "!x y", "|"])
    if kind < 0.7:
        return f"[{', '.join(_node(r, depth + 1) for _ in range(r.randrange(4)))}]"
    if kind < 0.75:
        many = r.choice([10, 100, 3_000])
        return "[" * many + "]" * many
    keys = [
        *_KEYS,
        "_target_",
        "run",
        "job_logging",
        "callbacks",
        "params",
        "dir",
        "subdir",
        "root",
    ]
    items = (f"{r.choice(keys)}: {_node(r, depth + 1)}" for _ in range(r.randrange(4)))
    return f"{{{', '.join(items)}}}"


def _json(r: Random) -> bytes:
    rows: list[dict[str, object]] = [
        {"stage": "baseline", "role": "baseline", "accuracy": r.choice([0.5, None, "x", 1e999])},
        {
            "stage": "prune",
            "role": r.choice(["stage", "control", 3]),
            "accuracy": [1],
            "params": {},
        },
    ]
    for row in rows:
        row["metric"] = r.choice(["rmse", "accuracy", "x", [1], None])
        row["rmse"] = r.choice([2, "x"])
    record: dict[str, object] = {
        "status": r.choice(["completed", "failed", 3, None]),
        "started": r.choice(["2026-11-24T10:00:00.000+00:00", "never", "", 5]),
        "seed": r.choice([0, -1, "x", None]),
        "config": r.choice([{"arch": {"_target_": "netopt_cli.arch.cnn.build"}}, [], None, "x"]),
        "rows": r.choice([rows, rows, rows[:1], {}, [1], None]),
        "dataset": r.choice([{"name": "digits", "protocol": [1]}, {"name": [1]}, [], None]),
        "pipeline": r.choice([["prune"], [1], "x", None]),
    }
    if r.random() < 0.2:
        record |= {"kind": "seeds", "seeds": r.choice([[0], 3, None]), "runs": [".", "../b", 3, ""]}
    for key in list(record):
        if r.random() < 0.15:
            del record[key]
    text = json.dumps(record, indent=r.choice([None, 2]))
    if r.random() < 0.1:
        text = r.choice([text[: len(text) // 2], "", "[]", "[" * 100_000, '{"a":' * 5_000, "null"])
    return text.encode()


# Running

_DRY_RUN = "netopt_cli.dry_run"


def _foresees_nothing() -> ModuleType:
    found = ModuleType(_DRY_RUN)
    report = SimpleNamespace(stages=(), problems=(), as_json=dict)
    vars(found)["forecast"] = lambda config, *, allow: report
    return found


@contextlib.contextmanager
def playground() -> Iterator[Path]:
    """A current directory for examples, in an empty one; nothing of TensorFlow can be imported."""
    start = Path.cwd()
    stands_in = {"tensorflow": None, "keras": None, _DRY_RUN: _foresees_nothing()}
    hidden = {name: sys.modules.get(name) for name in stands_in}
    quiet_tensorflow()  # as a forecast does, whose settings are no finding
    with tempfile.TemporaryDirectory(prefix="netopt-fuzz-") as around:
        work = Path(around) / "work"
        (work / TAKEN).mkdir(parents=True)
        (work / TAKEN / "record.json").write_text("{}")
        os.chdir(work)
        sys.modules.update(stands_in)  # type: ignore[arg-type]
        foresees = vars(netopt_cli).pop("dry_run", None)  # or the package would have its own
        try:
            yield work
        finally:
            os.chdir(start)
            if foresees is not None:
                vars(netopt_cli)["dry_run"] = foresees
            for name, module in hidden.items():
                del sys.modules[name]
                if module is not None:
                    sys.modules[name] = module


def run(example: Example, work: Path) -> tuple[int | None, str]:
    """Runs an example in a playground; returns its exit code and what is wrong with it, or ""."""
    for name, content in example.files.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    before = _names(work)
    path_before, environment = list(sys.path), dict(os.environ)
    handlers, level = list(logging.root.handlers), logging.root.level
    out, err = _stream("strict"), _stream("backslashreplace")
    started = time.process_time()
    code: int | None = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = app.main(example.words)
        crash = ""
    except BaseException as error:
        crash = f"{type(error).__name__} came out of main: {error}"
    seconds = time.process_time() - started
    err.flush()
    said = err.buffer.getvalue().decode()  # type: ignore[attr-defined]
    changed = _names(work) ^ before
    if os.environ != environment:
        changed.add("the environment")
    sys.path[:] = path_before
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    for name in (CONFIGS, "stored", PACKED, "baseline.json", *changed):
        _remove(work / name)
    return code, crash or _wrong(code, said, seconds, changed)


def _wrong(code: int | None, said: str, seconds: float, changed: set[str]) -> str:
    internal = ("Traceback (most", "internal error: ", "internal error in")
    rules = [
        (any(text in said for text in internal), "internal error"),
        (code not in (0, 1, 2), f"exit code {code}"),
        (code == 1 and "cannot write" not in said, "exit code 1 for wrong input"),
        (code == 2 and not said.strip(), "exit code 2 without a word"),
        (any(c in said for c in "\x1b\x07\u202e"), "the message steers the terminal"),
        (seconds > SECONDS, f"it took {seconds:.1f} seconds of the processor"),
        (bool(changed), f"it wrote {sorted(changed)}"),
    ]
    return "; ".join(f"{what}: {said[-400:]!r}" for broken, what in rules if broken)


def _names(work: Path) -> set[str]:
    beside = {f"../{path.name}" for path in work.parent.iterdir()}
    return beside | {path.name for path in work.iterdir()}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _stream(errors: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors, write_through=True)


def main(argv: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first example")
    arguments = parser.parse_args(argv)
    codes: Counter[int | None] = Counter()
    findings, slowest = 0, (0.0, 0)
    with playground() as work:
        for number in range(arguments.first, arguments.first + arguments.examples):
            example = generate(Random(f"{arguments.seed}/{number}"))
            faulthandler.dump_traceback_later(_HANGS, exit=True)
            started = time.process_time()
            code, wrong = run(example, work)
            slowest = max(slowest, (time.process_time() - started, number))
            codes[code] += 1
            if wrong:
                findings += 1
                words = " ".join(f"{word!r:.200}" for word in example.words)
                print(f"--seed {arguments.seed} --first {number}: {words}\n  {wrong}", flush=True)
    faulthandler.cancel_dump_traceback_later()
    print(
        f"{arguments.examples} examples, {findings} findings; exit codes "
        f"{dict(sorted(codes.items(), key=str))}; the slowest, {slowest[1]}, took "
        f"{slowest[0]:.1f} s of the processor"
    )
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main())
