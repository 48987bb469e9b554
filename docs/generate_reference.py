"""Writes docs/reference.md from the shipped configs: `make docs`."""

from __future__ import annotations

from pathlib import Path

from netopt_cli import catalog

INTRODUCTION = """\
# Reference of the config groups

Made by `make docs` from `configs/`; do not edit. `netopt list` and `netopt show GROUP/NAME` tell
the same in the terminal. A key is set by `GROUP.KEY=VALUE`, for a stage by `opt.STAGE.KEY=VALUE`.
"""


def reference() -> str:
    """Returns the text of reference.md: each group, each choice, its YAML with the comments."""
    folders = catalog.config_folders()
    parts = [INTRODUCTION, "## run\n", _yaml(catalog.shipped_configs() / "run.yaml")]
    for group in catalog.groups(folders):
        parts.append(f"## {group}\n")
        for name, path in catalog.choices(group, folders).items():
            parts += [f"### {group}={name}\n", f"{catalog.description(path)}\n", _yaml(path)]
    return "\n".join(parts)


def _yaml(path: Path) -> str:
    return f"```yaml\n{path.read_text().rstrip()}\n```\n"


if __name__ == "__main__":
    (Path(__file__).parent / "reference.md").write_text(reference())
