"""Networks from files, which may be a stranger's: looked into, then loaded in Keras' safe mode."""

from __future__ import annotations

import textwrap
from pathlib import Path

import keras

from netopt_cli.errors import ArchError
from netopt_cli.graph.rebuild import layers
from netopt_cli.keras_file import check_keras_file


def load_network(file: str, shape: tuple[int, ...]) -> keras.Model:
    """Loads the network of `arch.path`.

    Args:
        file: A `.keras` or legacy `.h5` file, or the directory of a run, whose last stage is meant.
        shape: Of a sample, for a Sequential model that does not know it.

    Raises:
        ArchError: The file is missing, damaged, unsafe, or has classes that are not known.
    """
    path = Path(file).expanduser()
    if path.is_dir():
        path = _last_stage(path)
    if path.suffix not in {".keras", ".h5", ".hdf5"}:
        raise ArchError(f"arch.path must be a .keras or .h5 file. Received: path={path}")
    if not path.is_file():
        raise ArchError(f"arch.path does not exist or is not a file. Received: path={path}")
    unknown = [
        name
        for name in sorted(check_keras_file(path))
        if keras.saving.get_registered_object(name) is None
    ]
    if unknown:
        raise ArchError(
            f"arch.path has a class that is not Keras' own: '{unknown[0]}' in {path}. Register it "
            "with @keras.saving.register_keras_serializable() and name the module that defines it "
            "with --allow MODULE, if you trust it"
        )
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises nearly any class on a damaged or hostile file.
        if "lambda" in str(error).lower():
            raise ArchError(_refused_lambda(path)) from error
        raise ArchError(
            f"arch.path holds no Keras model that can be loaded in safe mode: {path} "
            f"({first_line(error)})"
        ) from error
    if isinstance(model, keras.Sequential) and not model.built:
        try:
            model.build((None, *shape))
        except ValueError as error:
            raise ArchError(
                f"The model of {path} cannot be built for inputs of shape {shape}: "
                f"{first_line(error)}"
            ) from error
    if any(isinstance(layer, keras.layers.Lambda) for layer in layers(model)):
        raise ArchError(_refused_lambda(path))
    return model


def _last_stage(run: Path) -> Path:
    """Returns the network of the last stage of a run, or of its baseline when there is none."""
    stages = {
        int(file.parent.name.partition("-")[0]): file
        for file in run.glob("[0-9]*-*/model.keras")
        if not file.parent.name.endswith("-control")
    }
    if not stages:
        raise ArchError(
            f"arch.path is a directory without a stage's model.keras. Received: path={run}"
        )
    return stages[max(stages)]


def _refused_lambda(path: Path) -> str:
    return (
        f"arch.path has a Lambda layer, which can run any code, and is refused: {path}. "
        "Replace the Lambda by a built-in layer and save the model again"
    )


def first_line(error: Exception) -> str:
    """What an error of Keras says, without the pages that may follow."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return textwrap.shorten(first, width=200, placeholder=" …")
