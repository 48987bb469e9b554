"""Files of networks, which may be a stranger's: looked into before Keras loads them.

Keras refuses most of what is refused here by itself, in its safe mode; which, hangs on its version,
and a message of its own comes late. Nothing of the file is built, imported or unpacked.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from netopt_cli.archives import check_expansion, check_zip
from netopt_cli.errors import ArchError

_CONFIG = "config.json"
_MOST_CONFIG_BYTES = 1 << 26
"""Of the description of a network; thousands of layers have a hundredth of it."""
_CODE = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__lambda__"}
"""Layers that run a code which the file brings."""


def check_keras_file(path: Path) -> set[str]:
    """Refuses a file that could run code, read or write other files, or fill the memory.

    Args:
        path: A `.keras` or legacy `.h5` file that exists.

    Returns:
        The registered names of the classes in it that are not Keras' own, such as `mine>Layer`; an
        `.h5` file does not tell.

    Raises:
        ArchError: A layer that runs code of the file; links out of it; no network.
        InputError: An archive that must not be unpacked.
    """
    if path.suffix == ".keras":
        if not zipfile.is_zipfile(path):
            raise ArchError(f"{path} is damaged: a .keras file is a zip archive")
        members = check_zip(path)
        with zipfile.ZipFile(path) as archive:
            config = next((each for each in members if each.filename == _CONFIG), None)
            if config is None:
                raise ArchError(f"{path} holds no Keras model: it has no {_CONFIG}")
            if config.file_size > _MOST_CONFIG_BYTES:
                raise ArchError(f"{path}: {_CONFIG} must be at most {_MOST_CONFIG_BYTES:,} bytes")
            foreign = _check_config(path, _read(path, archive, config))
            for member in members:
                if member.filename.endswith(".h5"):
                    content = _read(path, archive, member)
                    _check_weights(path, io.BytesIO(content), member.file_size)
        return foreign
    with path.open("rb") as stream:
        config_text = _check_weights(path, stream, path.stat().st_size)
    return set() if config_text is None else _check_config(path, config_text)


def _read(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise ArchError(f"{path} is damaged: {member.filename} cannot be read ({error})") from error


def _check_config(path: Path, text: bytes | str) -> set[str]:
    """Returns the registered names of classes that are not Keras' own."""
    foreign = set()
    try:
        config = json.loads(text)
        for node in _nodes(config):
            name = str(node.get("class_name"))
            if name in _CODE:
                what = name.strip("_").capitalize() if name == "__lambda__" else name
                raise ArchError(
                    f"arch.path has a {what} layer, which can run any code, and is refused: "
                    f"{path}. Replace the {what} by a built-in layer and save the model again"
                )
            module, registered = node.get("module"), node.get("registered_name")
            if module and registered and str(module).partition(".")[0] != "keras":
                foreign.add(str(registered))
    except (ValueError, RecursionError) as error:
        raise ArchError(f"{path} is damaged: its description of a model is no JSON") from error
    return foreign


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _check_weights(path: Path, stream: Any, size: int) -> str | None:
    """Checks an HDF5 file; returns the description of the network when it has one."""
    unpacked = 0
    try:
        with h5py.File(stream, "r") as file:
            for name, link in _links(file):
                if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
                    raise ArchError(
                        f"{path} has weights that are a link, '{name}', and is refused: a link can "
                        "lead to any other file"
                    )
                found = file[name]
                if isinstance(found, h5py.Dataset):
                    if found.external or found.is_virtual:
                        raise ArchError(
                            f"{path} has weights in another file, '{name}', and is refused"
                        )
                    unpacked += math.prod(found.shape or ()) * found.dtype.itemsize
            config = file.attrs.get("model_config")
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ArchError(f"{path} is damaged: its weights cannot be read ({error})") from error
    check_expansion(path, size, unpacked)
    return config


def _links(group: h5py.Group, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The links in a group and the groups below, by their path; none of them is followed twice."""
    seen = set()
    waiting = [(prefix, group)]
    while waiting:
        place, inner = waiting.pop()
        for name in inner:
            link = inner.get(name, getlink=True)
            yield f"{place}/{name}", link
            if isinstance(link, h5py.HardLink) and isinstance(inner[name], h5py.Group):
                child = inner[name]
                identity = h5py.h5o.get_info(child.id).addr
                if identity not in seen:
                    seen.add(identity)
                    waiting.append((f"{place}/{name}", child))
