"""A user's folder of configs, for the tests of everything that reads configs."""

from pathlib import Path

FILES = {
    "arch/mine.yaml": """\
        # A network of the user.
        _target_: mypackage.nets.mine
        width: 4
        options: {}
        """,
    "opt/shrink.yaml": """\
        # @package opt.shrink
        # A stage of the user.
        defaults:
          - /arch@helper: mlp
          - _self_
        _target_: mypackage.stages.Shrink
        helper_epochs: 2
        factor: 0.5
        """,
    "data/own.yaml": """\
        # Data of the user.
        _target_: mypackage.data.own
        path: ???
        """,
    "experiment/mine.yaml": """\
        # @package _global_
        # A preset of the user.
        defaults:
          - override /arch: lenet5
          - override /opt: [prune, distill]
        seed: 7
        opt:
          prune:
            sparsity: 0.9
        """,
}


def write_configs(folder: Path, **more: str) -> Path:
    """Writes FILES and `more` (`arch__x="…"` is arch/x.yaml) below `folder`; returns it."""
    files = FILES | {f"{name.replace('__', '/')}.yaml": text for name, text in more.items()}
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(line.removeprefix(" " * 8) for line in text.splitlines()) + "\n")
    return folder
