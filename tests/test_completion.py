"""What completes a command line, and the bash script as bash runs it."""

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from user_configs import write_configs

from netopt_cli.completion import SCRIPTS, candidates


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("netopt ", {"train", "list", "show", "doctor", "--help"}),
        ("netopt tr", {"train"}),
        ("netopt train ", {"arch=", "opt=", "seed=", "control=", "train.", "opt.prune."}),
        ("netopt train ar", {"arch=", "arch."}),
        ("netopt train --mul", {"--multirun"}),
        ("netopt train arch=mo", {"arch=mobilenet"}),
        ("netopt train +arch=mo", {"+arch=mobilenet"}),
        ("netopt train arch=mlp,mo", {"arch=mlp,mobilenet"}),
        ("netopt train opt=[prune,quantize_", {"opt=[prune,quantize_friendly"}),
        ("netopt train -m 'opt=none,[pr", {"opt=none,[prune"}),
        ("netopt train train.ep", {"train.epochs="}),
        ("netopt train data.augment.fl", {"data.augment.flip_horizontal="}),
        ("netopt train arch=vgg arch.wi", {"arch.widths="}),
        ("netopt train opt.prune.sp", {"opt.prune.sparsity="}),
        ("netopt train opt.distill.teacher=re", {"opt.distill.teacher=resnet"}),
        ("netopt train arch@opt.distill.teacher=re", {"arch@opt.distill.teacher=resnet"}),
        ("netopt train deterministic=", {"deterministic=true", "deterministic=false"}),
        ("netopt train train.nesterov=t", {"train.nesterov=true"}),
        ("netopt list da", {"data"}),
        ("netopt show opt/pr", {"opt/prune"}),
        ("netopt completion z", {"zsh"}),
    ],
)
def test_candidates(line: str, some: set[str]) -> None:
    found = candidates(line)
    assert some <= set(found)
    word = line.rpartition(" ")[2].lstrip("'")
    assert all(each.startswith(word) for each in found)


@pytest.mark.parametrize(
    "line",
    ["netopt nothing ", "netopt train seed=", "netopt train zzz.", "netopt doctor x",
     "netopt train --config-dir /nowhere arch="],
)  # fmt: skip
def test_nothing_to_complete(line: str) -> None:
    assert candidates(line) == []


def test_only_the_stages_that_were_chosen() -> None:
    assert candidates("netopt train opt=[prune] opt.") == [
        word for word in candidates("netopt train opt.") if word.startswith("opt.prune.")
    ]


def test_hidden_commands_are_not_offered() -> None:
    assert candidates("netopt _") == []


def test_configs_of_the_user(tmp_path: Path) -> None:
    own = write_configs(tmp_path)
    assert candidates(f"netopt train --config-dir {own} arch=mi") == ["arch=mine"]
    assert candidates(f"netopt train -cd {own} arch=mine arch.w") == ["arch.width="]


def bash(line: str, folder: Path) -> list[str]:
    """The completions that bash gets from the script for `line`."""
    program = folder / "netopt"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m netopt_cli.app "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (folder / "script").write_text(SCRIPTS["bash"])
    run = subprocess.run(
        ["bash", "-c",
         'PATH="$1:$PATH"; source "$1/script"; COMP_LINE=$2; COMP_POINT=${#COMP_LINE}; '
         'complete -p netopt >/dev/null || exit 1; _netopt; printf "%s\\n" "${COMPREPLY[@]}"',
         "bash", str(folder), line],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return run.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("netopt tra", ["train"]),
        ("netopt train arch=mob", ["mobilenet"]),
        ("netopt train opt=[prune,reg", ["[prune,regularize"]),
        ("netopt train train.batch", ["train.batch_size="]),
        ("netopt train zzz", []),
    ],
)
def test_bash_gets_what_follows_the_equals_sign(
    line: str, replies: list[str], tmp_path: Path
) -> None:
    assert bash(line, tmp_path) == replies


@pytest.mark.parametrize("shell", [name for name in SCRIPTS if shutil.which(name)])
def test_the_shell_can_read_its_script(shell: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell])
    assert subprocess.run([shell, "-n", str(script)], check=False).returncode == 0
