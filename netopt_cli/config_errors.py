"""The errors of Hydra, OmegaConf and YAML in netopt's words, and a bound on what reading takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import yaml
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from netopt_cli.errors import ConfigError, did_you_mean
from netopt_cli.time_limit import time_limit

_COMPOSING_SECONDS = 3
"""Of the processor, for one config; it takes 0.1. Interpolations of interpolations can take for
ever, or all memory."""


@contextmanager
def bounded() -> Iterator[None]:
    """Bounds the time and the depth of reading a config."""
    too_long = "the config takes too long to read: its interpolations multiply"
    try:
        with time_limit(_COMPOSING_SECONDS, too_long):
            yield
    except RecursionError as error:
        raise ConfigError("the config is nested too deeply, or refers to itself") from error
    except ValueError as error:  # of Python's own, for a number of thousands of digits
        raise ConfigError(f"the config has a value that cannot be read: {error}") from error


@contextmanager
def hydra_errors() -> Iterator[None]:
    """Around calls of Hydra alone: `bounded`, `readable_errors`, and the errors that come of values
    of a kind that it did not expect."""
    with bounded():
        try:
            with readable_errors():
                yield
        except (AssertionError, AttributeError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"Hydra cannot compose the config ({reason})") from error


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turns the errors of Hydra, OmegaConf and YAML into a ConfigError of one line."""
    try:
        yield
    except MissingConfigException as error:
        raise ConfigError(_missing_config(error)) from error
    except yaml.YAMLError as error:
        raise ConfigError("a config is not valid YAML: " + " ".join(str(error).split())) from error
    except (HydraException, OmegaConfBaseException) as error:
        lines = [*str(error).splitlines(), *str(error.__cause__ or "").splitlines()]
        kept = [line.strip() for line in lines if line.strip() and "object_type" not in line]
        raise ConfigError(": ".join(kept[:3]).replace("full_key: : ", "")) from error


def _missing_config(error: MissingConfigException) -> str:
    first = str(error).splitlines()[0]
    place = f"{first.partition(':')[0]}: " if first.startswith("In '") else ""
    path = str(error.missing_cfg_file or "")
    group, _, name = path.rpartition("/")
    if not group:
        return first
    return f"{place}unknown {group} '{name}'.{did_you_mean(name, error.options or [])}"
