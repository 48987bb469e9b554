"""What a run ran on: machine, packages and source, for its record."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from netopt_cli import __version__

PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "pandas",
    "hydra-core",
    "omegaconf",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "scikit-learn",
)


def describe_environment() -> dict[str, Any]:
    """Returns Python, operating system, processor, cores, memory and package versions."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "packages": {name: metadata.version(name) for name in PACKAGES} | {"netopt": __version__},
    }


def timestamp() -> str:
    """Now, in UTC, as ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def describe_git(folder: Path) -> dict[str, Any] | None:
    """Returns commit, branch and whether there are changes; None outside a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    difference = _git(folder, "diff", "HEAD") if changes else None
    return {
        "commit": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": bool(changes),
        "diff_sha256": hashlib.sha256(difference.encode()).hexdigest() if difference else None,
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
