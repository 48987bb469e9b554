"""`netopt doctor`: what this machine and installation have, and what is missing for what."""

import importlib.util
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

from netopt_cli import __version__, terminal
from netopt_cli.arguments import Parser
from netopt_cli.errors import EXIT_FAILED, EXIT_OK, StorageError
from netopt_cli.run_dir import use_run_dir

HELP = "Show versions, devices, threads, and what is missing for what."

_PACKAGES = (
    "tensorflow",
    "keras",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "hydra-core",
    "omegaconf",
    "numpy",
    "pandas",
    "pydantic",
    "rich",
    "scikit-learn",
    "tensorboard",
)
_EXTRAS = {
    "onnx": (("onnx", "onnxruntime", "tf2onnx"), "ONNX export and its latency"),
    "tracking": (
        ("mlflow", "sqlalchemy", "alembic", "wandb"),
        "sending results to MLflow or Weights & Biases",
    ),
    "tfds": (("tensorflow_datasets",), "data sets of TensorFlow Datasets"),
    "keras_hub": (("keras_hub",), "encoders of texts from KerasHub"),
    "ray": (("hydra_plugins.hydra_ray_launcher",), "sweeps on a Ray cluster"),
}


def parser() -> Parser:
    return Parser("doctor", HELP, "Exit code 1 when a run could not work here.")


def main(argv: Sequence[str]) -> int:
    parser().read(argv)
    problems: list[str] = []
    sections = {
        "Versions": _versions(problems),
        "Machine": _machine(),
        "Devices": _devices(problems),
        "Extras": _extras(),
        "Storage": _storage(problems),
    }
    _print({title: list(lines) for title, lines in sections.items()})
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    return EXIT_FAILED if problems else EXIT_OK


def _versions(problems: list[str]) -> Iterator[tuple[str, str]]:
    yield "netopt", __version__
    yield "python", f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    for name in _PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            problems.append(f"{name} is not installed: pip install netopt")
            yield name, "missing"


def _machine() -> Iterator[tuple[str, str]]:
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    yield "threads", f"{usable} usable of {os.cpu_count()}"
    if sys.platform != "win32":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        yield "memory", f"{memory / 2**30:.1f} GiB"


def _devices(problems: list[str]) -> Iterator[tuple[str, str]]:
    terminal.quiet_tensorflow()
    with ExitStack() as stack:
        if not os.environ.get("NETOPT_TRACEBACK"):
            stack.enter_context(terminal.native_output_to(Path(os.devnull)))
        try:
            import tensorflow as tf

            devices = [(d.name, d.device_type) for d in tf.config.list_physical_devices()]
        except ImportError as error:
            problems.append(f"TensorFlow cannot be imported: {error}")
            devices = []
    yield from devices
    if not any(kind == "GPU" for _, kind in devices):
        yield "GPU", "none: target=gpu will not work"


def _extras() -> Iterator[tuple[str, str]]:
    for extra, (modules, purpose) in _EXTRAS.items():
        missing = [module for module in modules if not _is_installed(module)]
        if missing:
            yield (
                extra,
                f"{', '.join(missing)} missing for {purpose}: pip install 'netopt[{extra}]'",
            )
        else:
            yield extra, f"installed: {purpose}"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def _storage(problems: list[str]) -> Iterator[tuple[str, str]]:
    try:
        yield "runs", f"{use_run_dir(Path('runs')).absolute()} can be written"
    except StorageError as error:
        problems.append(str(error))
        yield "runs", str(error)
    cache = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"
    names = sorted(path.name for path in cache.iterdir()) if cache.is_dir() else []
    yield (
        "data cache",
        f"{cache}: {', '.join(names) or 'empty, data sets are fetched at first use'}",
    )


def _print(sections: dict[str, list[tuple[str, str]]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = terminal.consoles().out
    width = max(len(name) for lines in sections.values() for name, _ in lines)
    for title, lines in sections.items():
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column(min_width=width + 2, no_wrap=True)
        table.add_column()
        for name, text in lines:
            table.add_row(f"  {escape(name)}", escape(text))
        out.print(f"[bold cyan]{title}[/]")
        out.print(table)
